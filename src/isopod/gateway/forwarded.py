"""Requests that other workers hand over, run through this worker's own gateway (see `forward`)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from isopod.errors import ClientDisconnected
from isopod.gateway.forward import (
    END,
    FORWARDED,
    TAKEN,
    WANT,
    Receive,
    ResponseCut,
    Send,
    stream,
)
from isopod.gateway.messages import (
    Frame,
    FrameInvalid,
    FrameReader,
    Message,
    frames_of,
    received,
    scope_of,
)

_log = logging.getLogger(__name__)
_MAX = 4096
_SCOPE_S = 5.0  # it was sent with the socket
_FLUSH_S = 0.5  # for what was answered, when this worker ends
_LAST_S = 5.0  # for the other side to take what was sent
_DESERTED_S = 10.0  # for an app whose WebSocket's client, or the worker of that, is gone

App = Callable[[Message, Receive, Send], Awaitable[None]]


class ForwardedRequests:
    """`take` is given each one's socket."""

    def __init__(self, app: App, *, answers: Callable[[Message], bool]) -> None:
        """`answers`: whether this worker is the one for a scope. The other one may not know yet
        that it is not any more; told before anything has begun, it looks again."""
        self._app = app
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, request: socket.socket) -> None:
        if len(self._tasks) >= _MAX:
            request.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End those that are left, when those that have answered have got rid of it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FLUSH_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, request: socket.socket) -> None:
        try:
            reader, writer = await stream(request)
        except BaseException:
            request.close()
            raise
        link: _Link | None = None
        try:
            frames = FrameReader(reader)
            async with asyncio.timeout(_SCOPE_S):
                scope, request_id = scope_of(await frames.next())
            if not self._answers(scope):
                return
            # At once, and past the stream: who has given up waiting for this has closed its side,
            # it cannot be said any more, and nothing may begin.
            request.send(TAKEN)
            link = _Link(frames, writer, scope["type"])
            if scope["type"] == "websocket" and (task := asyncio.current_task()):
                link.when_cut(task.cancel)  # its app may never ask
            await self._app(scope | {FORWARDED: request_id}, link.receive, link.send)
            writer.write(END)
            await link.end()
        except (TimeoutError, EOFError, OSError, FrameInvalid, ClientDisconnected, ResponseCut):
            pass  # who handed it over sees it end, and tells its client
        except Exception:
            _log.exception("a request that was handed over failed")
        finally:
            if link is not None:
                link.close()
            writer.transport.abort()


class _Link:
    """`receive` and `send` of a request whose client is at another worker."""

    def __init__(self, frames: FrameReader, writer: asyncio.StreamWriter, protocol: str) -> None:
        self._frames = frames
        self._writer = writer
        self._protocol = protocol
        self._wanted = False
        self._gone = "http.disconnect" if protocol == "http" else "websocket.disconnect"
        self._came: asyncio.Queue[Frame | None] = asyncio.Queue(maxsize=1)
        self._over = self._over_for_good = False
        self._timer: asyncio.TimerHandle | None = None
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def receive(self) -> Message:
        """One message for each time it is wanted, also when who wanted it was cancelled."""
        if self._over:
            return self._disconnect()
        try:
            if not self._wanted:
                self._wanted = True
                self._writer.write(WANT)
            frame = await self._came.get()
            if frame is not None:
                message = received(frame, self._protocol)
                self._wanted = frame.head.get("split") is True  # the rest of it is on its way
                return message
        except (OSError, FrameInvalid):
            pass
        self._over = True
        return self._disconnect()

    async def send(self, message: Mapping[str, Any]) -> None:
        try:
            for frame in frames_of(message):
                self._writer.write(frame.pack())
                await self._writer.drain()
        except (OSError, RuntimeError):
            raise ClientDisconnected("the client went away") from None

    async def end(self) -> None:
        """Until the other side has taken all and closed: a socket that closes with something unread
        in it takes back what it sent."""
        self._over = True
        while not self._came.empty():
            self._came.get_nowait()
        await asyncio.wait((self._reading,), timeout=_LAST_S)

    def when_cut(self, call: Callable[[], object]) -> None:
        """Call it some time after the other side has gone, if this is not over by then."""
        loop = asyncio.get_running_loop()

        def cut(_reading: object) -> None:
            if not self._over_for_good:
                self._timer = loop.call_later(_DESERTED_S, call)

        self._reading.add_done_callback(cut)

    def close(self) -> None:
        self._over_for_good = True
        if self._timer is not None:
            self._timer.cancel()
        self._reading.cancel()

    async def _read(self) -> None:
        frame: Frame | None
        while True:
            try:
                frame = await self._frames.next()
            except (EOFError, FrameInvalid):
                frame = None
            if not self._over:
                await self._came.put(frame)
            if frame is None:
                return

    def _disconnect(self) -> Message:
        message: Message = {"type": self._gone}
        if self._gone == "websocket.disconnect":
            message |= {"code": 1006, "reason": ""}
        return message
