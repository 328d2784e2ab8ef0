"""One request to an ASGI app and its response, on the host's side, among the others of its guest.

What its client does and what its guest says meet here: bodies flow within a window both ways, and
an end that the guest does not hear of, or does not obey, is the end of the guest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from isopod.errors import (
    ClientDisconnected,
    EngineError,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
)
from isopod.runtimes import frames
from isopod.runtimes.client_wait import reading
from isopod.runtimes.guest import BodyReader, GuestRequest, GuestResponse

if TYPE_CHECKING:
    from isopod.runtimes.python.exchanges import Exchanges

WINDOW = 256 << 10
_MAX_PIECE = 256 << 10
# Acknowledged in such pieces: each wakes the guest.
_ACKNOWLEDGE = WINDOW // 4
# A guest that was told to end an exchange hears it within so long, or it is stuck and ends whole;
# and so long it has to obey.
_HEARS_S = 1.0
_OBEYS_S = 2.0


class HttpExchange:
    """See `isopod.runtimes.guest.Exchange`."""

    def __init__(self, number: int, among: Exchanges) -> None:
        self.number = number
        self.ended = False
        self.request_id = ""
        self._among = among
        self._waiter: asyncio.Future[None] | None = None
        self._response: GuestResponse | None = None
        self._chunks: deque[bytes] = deque()
        self._whole = False  # the response is
        self._error: IsopodError | None = None
        self._stopped = False
        self._read_body: BodyReader | None = None
        self._body_task: asyncio.Task[None] | None = None
        self._outstanding = (
            0  # bytes of the body that the guest has sent and counts as on their way
        )
        self._taken = 0  # of those, what the client has and the guest does not know yet
        self._waits = 0  # for the client, at once
        self._waits_since = 0.0
        self._client_wait_s = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def client_wait_s(self) -> float:
        now = self._loop.time() - self._waits_since if self._waits else 0.0
        return self._client_wait_s + now

    # -- the gateway's ----------------------------------------------------------------------

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        self.request_id = request.request_id
        self._read_body = read_body
        frame = frames.request_frame(request)
        self._among.open(self)
        self._among.tell(b"r", self.number, frame)
        await self._until(lambda: self._response is not None)
        response = self._response
        if response is None:
            raise EngineError("an exchange has no response")
        if response.more:
            self._begin_wait()
            self._take(len(response.body))
        return response

    async def next_chunk(self) -> bytes | None:
        if self._waits:
            self._end_wait()
        await self._until(lambda: bool(self._chunks) or self._whole)
        if not self._chunks:
            return None
        chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._take(len(chunk))
        self._begin_wait()
        return chunk

    async def finish(self) -> None:
        await self._until(lambda: self.ended)

    def abandon(self) -> None:
        if not (self.ended or self._stopped):
            self._among.tell(b"g", self.number)

    def stop(self) -> None:
        if self._stopped or self.ended:
            return
        self._stopped = True
        self._stop_reading()
        self._fail(GuestFailed("the request was ended"))
        told = self._among.tell(b"c", self.number)
        self._loop.call_later(_HEARS_S, self._check_heard, told)
        self._loop.call_later(_OBEYS_S, self._check_obeyed)

    # -- the guest's ------------------------------------------------------------------------

    def said(self, kind: bytes, payload: bytes) -> None:
        if kind == b"F":
            self.ended = True
            self._stop_reading()
            if not self._whole:
                self._fail(GuestFailed("the app ended before its response did"))
            self._wake()
            return
        if self._stopped or self._error is not None:
            return  # on its way while we gave up
        if kind in (b"S", b"H") and self._response is None:
            self._head(payload, more=kind == b"H")
        elif kind == b"D" and payload and self._response is not None and not self._whole:
            self._count(len(payload))
            self._chunks.append(payload)
            self._wake()
        elif kind == b"E" and self._response is not None and not self._whole:
            self._whole = True
            self._wake()
        elif kind == b"X" and not self._whole:
            error = self._among.app_error(payload)
            error.details["streaming"] = self._response is not None
            self._fail(error)
        elif kind == b"X":
            pass  # what it did after its response; its log says it
        elif kind == b"B" and self._body_task is None:
            self._start_reading(int.from_bytes(payload[:4], "little"))
        else:
            raise GuestProtocolError(f"the guest sent {kind!r} of an exchange that awaits it not")

    def _head(self, payload: bytes, *, more: bool) -> None:
        try:
            response = frames.parse_response(payload, more=more, at=0)
        except GuestProtocolError as error:
            self.stop()
            self._error = error
            return
        if more:
            self._count(len(response.body))
        elif len(response.body) > _MAX_PIECE:
            raise GuestProtocolError(f"the guest sent {len(response.body):,} bytes at once")
        else:
            self._whole = True
        # A declared length does not end the response here: what comes later is checked like it.
        self._response = GuestResponse(
            response.status, response.headers, response.body, more, response.length
        )
        self._wake()

    def _count(self, size: int) -> None:
        self._outstanding += size
        if self._outstanding > WINDOW + 2 * _MAX_PIECE:
            raise GuestProtocolError("the guest sent more than it may before the client took it")

    def _take(self, size: int) -> None:
        """The gateway has so much more of the body."""
        self._taken += size
        if self._taken >= _ACKNOWLEDGE and not self.ended:
            self._outstanding -= self._taken
            taken, self._taken = self._taken, 0
            self._among.tell(b"t", self.number, taken.to_bytes(4, "little"))

    def guest_ended(self, error: IsopodError) -> None:
        self.ended = True
        self._stop_reading()
        self._fail(error.again())

    # -- the request's body -----------------------------------------------------------------

    def _start_reading(self, wanted: int) -> None:
        self._begin_wait()
        size = min(wanted, _MAX_PIECE)
        self._body_task = self._loop.create_task(self._feed(size))

    async def _feed(self, size: int) -> None:
        data = b""
        try:
            if size and self._read_body is not None:
                with reading("the request body"):
                    data = await self._read_body(size)
        except ClientDisconnected as error:
            self._fail(error)
            self._among.tell(b"g", self.number)
            return
        except IsopodError as error:
            self._fail(error)
            return
        finally:
            self._body_task = None
            self._end_wait()
        self._among.tell(b"b" if data else b"e", self.number, data)

    def _stop_reading(self) -> None:
        if self._body_task is not None:
            self._body_task.cancel()

    # ---------------------------------------------------------------------------------------

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: IsopodError) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _begin_wait(self) -> None:
        if not self._waits:
            self._waits_since = self._loop.time()
        self._waits += 1

    def _end_wait(self) -> None:
        self._waits -= 1
        if not self._waits:
            self._client_wait_s += self._loop.time() - self._waits_since

    def _check_heard(self, told: int) -> None:
        if not self.ended and not self._among.has_heard(told):
            self._among.end_guest(
                GuestFailed(
                    "the instance was ended: a request of it did not yield to the event loop",
                    hint="await what takes long, or do it in fewer steps",
                )
            )

    def _check_obeyed(self) -> None:
        if not self.ended:
            self._among.end_guest(
                GuestFailed("the instance was ended: a request of it went on when it was cancelled")
            )
