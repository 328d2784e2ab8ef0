"""Bodies: a request's, read from the client only when the guest asks for it; a response's, sent as
the client takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from isopod.errors import BodyTooLarge, ClientDisconnected, ClientTooSlow

# A client that sends nothing for so long, while its request waits for more, is given up; and one
# that takes nothing of its response.
CLIENT_IDLE_S = 30.0
_WATCH_BUFFER = 256 << 10
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def send_piece(data: bytes, send: Send) -> None:
    """One piece of a response that goes on. Raises ClientTooSlow."""
    try:
        async with asyncio.timeout(CLIENT_IDLE_S):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except TimeoutError:
        raise ClientTooSlow(f"the client took nothing for {CLIENT_IDLE_S:.0f} s") from None


class RequestBody:
    """Never more than one `receive` at a time: the reader and the watch share a lock."""

    def __init__(self, receive: Receive, *, has_body: bool, limit_bytes: int) -> None:
        self._receive = receive
        self._limit = limit_bytes
        self._buffer = b""
        self._ended = not has_body
        self._gone = False
        self._taken = 0
        self._lock = asyncio.Lock()
        self._room: asyncio.Event | None = None  # set when the guest has taken from the buffer

    @property
    def taken(self) -> int:
        """Bytes that came from the client so far."""
        return self._taken

    async def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises BodyTooLarge, ClientDisconnected,
        ClientTooSlow."""
        while not self._buffer and not self._ended:
            # Around the lock too: the watch holds it while it waits for the same message.
            try:
                async with asyncio.timeout(CLIENT_IDLE_S), self._lock:
                    if not self._buffer and not self._ended:
                        await self._take()
            except TimeoutError:
                raise ClientTooSlow(f"the client sent nothing for {CLIENT_IDLE_S:.0f} s") from None
        if self._gone and not self._buffer:
            raise ClientDisconnected("the client went away before its body was complete")
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        if self._room is not None:
            self._room.set()
        return data

    async def disconnected(self) -> None:
        """Return when the client has gone away; not while more body waits than we buffer."""
        while not self._gone:
            if len(self._buffer) >= _WATCH_BUFFER:
                self._room = asyncio.Event()
                await self._room.wait()
                continue
            async with self._lock:
                if not self._gone:
                    await self._take()

    async def _take(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            self._ended = True
            return
        data = message.get("body", b"")
        self._taken += len(data)
        if self._taken > self._limit:
            raise BodyTooLarge(f"the request body is larger than {self._limit >> 20} MiB")
        self._buffer += data
        if not message.get("more_body"):
            self._ended = True
