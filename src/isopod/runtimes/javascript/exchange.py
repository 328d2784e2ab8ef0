"""One request to a JavaScript guest, on the host's side. See `isopod.runtimes.guest.Exchange`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from isopod.errors import (
    ClientDisconnected,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.runtimes.client_wait import ClientWait, reading
from isopod.runtimes.frames import parse_response, request_frame
from isopod.runtimes.guest import BodyReader, GuestRequest, GuestResponse

_MAX_BODY_READ = 64 << 10
# Told in such steps: the guest waits when it has sent four of them that nobody took.
_TAKEN_STEP = 64 << 10
_MAX_UNTAKEN = (256 << 10) + (64 << 10)
_MAX_SUMMARY = 500

Say = Callable[[bytes, int, bytes], None]
Room = Callable[[], Awaitable[None]]


class JavaScriptExchange:
    """`say` queues an item for the guest; a request, and what it asked for, after `room` says that
    there is some."""

    def __init__(
        self, number: int, *, say: Say, room: Room, stop: Callable[[int], None], memory_mib: int
    ) -> None:
        self.number = number
        self.ended = False
        self._say = say
        self._room = room
        self._stop = stop
        self._memory_mib = memory_mib
        self._read_body: BodyReader | None = None
        self._body_task: asyncio.Task[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._untold = 0  # bytes taken that the guest does not know of
        self._waiter: asyncio.Future[Any] | None = None
        self._over: asyncio.Future[None] | None = None
        self._error: IsopodError | None = None
        self._answered = False
        self._whole = False
        self._client_wait = ClientWait()

    # -- the gateway's side -----------------------------------------------------------------

    @property
    def client_wait_s(self) -> float:
        return self._client_wait.seconds

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        if self._error is not None:
            raise self._error
        self._read_body = read_body
        frame = request_frame(request)
        await self._room()
        if self._error is not None:  # its guest was ended meanwhile
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        self._say(b"r", self.number, frame)
        response: GuestResponse = await self._waiter
        return response

    async def next_chunk(self) -> bytes | None:
        self._client_wait.end()
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._whole:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._chunk_bytes -= len(chunk)
        self._untold += len(chunk)
        if self._untold >= _TAKEN_STEP and not self.ended:
            self._say(b"t", self.number, self._untold.to_bytes(4, "little"))
            self._untold = 0
        self._client_wait.begin()
        return chunk

    async def finish(self) -> None:
        if self._error is not None:
            raise self._error
        if not self.ended:
            self._over = asyncio.get_running_loop().create_future()
            await self._over

    def abandon(self) -> None:
        if not self.ended:
            self._say(b"g", self.number, b"")

    def stop(self) -> None:
        self._stop(self.number)

    # -- the guest's side -------------------------------------------------------------------

    def take(self, operation: bytes, data: bytes) -> None:
        """An item of the guest's. Raises GuestProtocolError."""
        if operation in (b"S", b"H") and not self._answered:
            self._answered = True
            response = parse_response(operation + data, more=operation == b"H")
            self._whole = not response.more
            if response.more:
                self._client_wait.begin()
            self._settle(response)
        elif operation == b"D" and self._answered:
            if self._whole or not data:
                return  # more than it declared: nobody takes it; or what no bound would count
            self._chunk_bytes += len(data)
            if self._chunk_bytes > _MAX_UNTAKEN:
                raise GuestProtocolError("the guest sent more than anybody can take")
            self._chunks.append(data)
            self._settle(None)
        elif operation == b"E" and self._answered:
            self._whole = True
            self._settle(None)
        elif operation == b"B" and len(data) == 4:
            self._begin_body_read(int.from_bytes(data, "little"))
        elif operation == b"X":
            self.ended = True  # for the gateway: what it still does has nothing to do with it
            self.fail(self._failure(data))
        elif operation == b"F":
            self._end()
        else:
            raise GuestProtocolError(
                f"the guest sent operation {operation!r} for a request that is not there for it"
            )

    def fail(self, error: IsopodError) -> None:
        """Whoever waits gets `error`."""
        if self._whole:
            self._end()  # the client has everything
            return
        self._error = self._error or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def close(self, error: IsopodError) -> None:
        """Its guest is gone."""
        self._cancel_body()
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)
        if not self._whole:
            self.fail(error)
        self.ended = True

    def _settle(self, value: Any) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(value)

    def _end(self) -> None:
        self.ended = True
        self._cancel_body()
        if not self._whole and self._error is None:
            self.fail(GuestFailed("the app ended the request without a whole response"))
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _failure(self, data: bytes) -> IsopodError:
        kind, _, summary = data.decode("utf-8", "replace").partition("\n")
        if kind == "memory":
            error: IsopodError = MemoryLimitExceeded(
                f"the app reached its memory limit of {self._memory_mib} MiB"
            )
        else:
            error = GuestFailed(
                "the app raised an error", details={"summary": summary[:_MAX_SUMMARY]}
            )
        error.details["streaming"] = self._answered
        return error

    # -- the request's body -----------------------------------------------------------------

    def _begin_body_read(self, wanted: int) -> None:
        if self._body_task is not None:
            raise GuestProtocolError("the guest reads the body twice at once")
        self._client_wait.begin()
        size = min(max(wanted, 1), _MAX_BODY_READ)
        self._body_task = asyncio.get_running_loop().create_task(self._feed_body(size))

    async def _feed_body(self, size: int) -> None:
        try:
            with reading("the request body"):
                data = b"" if self._read_body is None else await self._read_body(size)
            self._client_wait.end()
            await self._room()
        except IsopodError as error:
            if isinstance(error, ClientDisconnected):
                self.abandon()
            self.fail(error)
            return
        finally:
            self._body_task = None
            self._client_wait.end()
        self._say(b"b" if data else b"e", self.number, data)

    def _cancel_body(self) -> None:
        if self._body_task is not None:
            self._body_task.cancel()
            self._body_task = None
