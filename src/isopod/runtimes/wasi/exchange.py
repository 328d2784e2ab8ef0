"""One request to a program: its instance, what it reads and what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from isopod.engine.instance import Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.engine.streams import STDOUT
from isopod.errors import GuestFailed, IsopodError, MemoryLimitExceeded
from isopod.runtimes.client_wait import ClientWait, reading
from isopod.runtimes.guest import BodyReader, GuestRequest, GuestResponse, OutputSink
from isopod.runtimes.wasi import cgi

_MAX_BODY_READ = 64 << 10
# A program that writes faster than its client takes waits when so much was not taken.
_MAX_UNTAKEN = 256 << 10
_MAX_CHUNKS = 1024  # of a single byte each, perhaps


class ProgramExchange:
    """See `isopod.runtimes.guest.Exchange` and `isopod.engine.streams.Streams`. Its instance begins
    with `send` and ends with it, however it ends."""

    def __init__(
        self,
        *,
        make: Callable[[Mapping[str, str]], Instance],
        scheduler: Scheduler,
        output: OutputSink,
        env: Mapping[str, str],
        over: Callable[[], None],
    ) -> None:
        """`make` gives an instance with that environment; `over` is called when it has ended."""
        self.ended = False
        self._make = make
        self._scheduler = scheduler
        self._output = output
        self._env = env
        self._over = over
        self._instance: Instance | None = None
        self._head: bytearray | None = bytearray()  # what was written of it; None: it is whole
        self._response_head = b""
        self._chunks: list[bytes] = []
        self._untaken = 0
        self._blocked = False  # the program waits for somebody to take what it wrote
        self._abandoned = False
        self._error: IsopodError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._has_body = False
        self._read_body: BodyReader | None = None
        self._body_task: asyncio.Task[None] | None = None
        self._client_wait = ClientWait()

    # -- the gateway's side -----------------------------------------------------------------

    @property
    def client_wait_s(self) -> float:
        return self._client_wait.seconds

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        if self.ended:
            raise GuestFailed("the guest was ended")
        self._has_body, self._read_body = request.has_body, read_body
        instance = self._instance = self._make(cgi.environment(request, self._env))
        instance.streams = self
        instance.on_exit = self._on_exit
        instance.start([("_start", None)])
        self._scheduler.wake(instance)
        while self._head is not None and not self.ended:
            await self._wait()
        if self._error is not None:
            raise self._error
        return cgi.parse_head(self._response_head, self._take(), more=not self.ended)

    async def next_chunk(self) -> bytes | None:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            await self._wait()
        return self._take()

    async def finish(self) -> None:
        while not self.ended:
            self._take()
            await self._wait()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        self._abandoned = True
        self._take()

    def stop(self) -> None:
        self._end(GuestFailed("the guest was ended"))

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._untaken = 0
        if self._blocked:
            self._blocked = False
            self._client_wait.end()
            self._answer(b"")
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the program's side: on its fiber ---------------------------------------------------

    def write(self, fd: int, data: bytes) -> bool:
        if fd != STDOUT:
            self._output("stderr", data)
            return True
        if self._abandoned:
            return True
        if self._head is not None:
            before = len(self._head)
            self._head += data
            end = cgi.head_end(self._head, before)
            if not end:
                return True
            self._response_head, data = bytes(self._head[:end]), bytes(self._head[end:])
            self._head = None
        if data:
            self._chunks.append(data)
            self._untaken += len(data)
        self._tell()
        if self._untaken <= _MAX_UNTAKEN and len(self._chunks) <= _MAX_CHUNKS:
            return True
        self._blocked = True
        self._client_wait.begin()
        return False

    def read(self, most: int) -> bytes | None:
        if not self._has_body or self._read_body is None:
            return b""
        self._client_wait.begin()
        size = min(most, _MAX_BODY_READ)
        self._body_task = asyncio.get_running_loop().create_task(self._feed(self._read_body, size))
        return None

    async def _feed(self, read_body: BodyReader, size: int) -> None:
        try:
            with reading("the request body"):
                data = await read_body(size)
        except IsopodError as error:
            self._body_task = None
            self._end(error)
            return
        self._body_task = None
        self._client_wait.end()
        self._answer(data)

    def _answer(self, data: bytes) -> None:
        instance = self._instance
        if instance is not None and instance.state is State.CALLING:
            instance.reply(data)
            self._scheduler.wake(instance)

    # -- its end ----------------------------------------------------------------------------

    def _on_exit(self, error: IsopodError | None) -> None:
        try:
            self._end(self._verdict(error))
        except IsopodError as bad:
            self._end(bad)

    def _verdict(self, error: IsopodError | None) -> IsopodError | None:
        """A program that has answered and then gives a status has answered. Raises what is wrong
        with its head."""
        status: Any = None if error is None else error.details.get("exit_status")
        if error is not None and status is None:
            return error
        if self._head is None:
            if status:
                self._output("isopod", f"the program ended with status {status}\n".encode())
            return None
        if error is not None and status:
            if isinstance(error, MemoryLimitExceeded):
                return error
            return GuestFailed(
                f"the program ended with status {status} before it had answered",
                details=error.details,
            )
        cgi.check_ended(self._head)
        return None

    def _end(self, error: IsopodError | None) -> None:
        """Safe to call twice."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        if self._body_task is not None:
            self._body_task.cancel()
            self._body_task = None
        if self._instance is not None:
            self._instance.close()
        # What is left to do is the client's: to take what there is.
        self._client_wait.begin()
        self._tell()
        self._over()
