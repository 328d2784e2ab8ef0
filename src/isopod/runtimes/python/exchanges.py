"""The many exchanges of one guest, on the host's side: an ASGI app's requests.

The guest speaks in calls W (see `guest/isopod_frames.py`): what it says is told to the exchanges,
and it is answered when there is something for it. A guest whose exchanges are all over is not
answered until there is a new one. What it says of an exchange that cannot be (a second head, a body
before it) ends the guest; what is wrong with a response ends that exchange alone.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol

from isopod.errors import (
    ClientDisconnected,
    EngineError,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
)
from isopod.host.connections import Connections
from isopod.runtimes import frames
from isopod.runtimes.client_wait import reading
from isopod.runtimes.guest import BodyReader, GuestRequest, GuestResponse

CAPACITY = 1000  # an app's own concurrency is smaller; what a guest is asked to hold has an end
WINDOW = 256 << 10
_MAX_PIECE = 256 << 10
# Of one frame: it is taken in one step of the loop, which has other guests.
_MAX_ITEMS = 8192
_MAX_SOCKETS = 2048
_ANSWER_BYTES = 2 << 20
_FOR_EVER = 0xFFFFFFFF
# Acknowledged in such pieces: each wakes the guest.
_ACKNOWLEDGE = WINDOW // 4
# A guest that was told to end an exchange hears it within so long, or it is stuck and ends whole;
# and so long it has to obey.
_HEARS_S = 1.0
_OBEYS_S = 2.0
_WAIT = struct.Struct("<cIH")
_SOCKET = struct.Struct("<IB")
_ITEM = struct.Struct("<cII")


class GuestSide(Protocol):
    """The guest that has them."""

    def answer(self, data: bytes) -> None:
        """Answer its W, and run it."""

    def app_error(self, said: bytes) -> IsopodError:
        """Of an X item."""

    def end(self, error: IsopodError) -> None:
        """It is broken or stuck: every exchange gets `error`."""

    def connections(self) -> Connections | None:
        """None: it has not made any yet."""


class Exchanges:
    def __init__(self, guest: GuestSide) -> None:
        self._guest = guest
        self._open: dict[int, HttpExchange] = {}
        self._ended_by: IsopodError | None = None
        self._last = 0
        self._told = 0  # items, so far
        self._last_end = 0  # of those, the last that told it to end an exchange
        self._news: deque[bytes] = deque()
        self._waits = False
        self._wanted: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def waits(self) -> bool:
        """The guest is in W, and hears what is new at once."""
        return self._waits

    @property
    def stuck(self) -> bool:
        """It was told to end an exchange, and has not heard that yet: it may not ever."""
        return not self.has_heard(self._last_end)

    def has_heard(self, item: int) -> bool:
        """Whether the guest was told that item (a number that `tell` gave)."""
        return item <= self._told - len(self._news)

    def request_id(self, number: int) -> str:
        exchange = self._open.get(number)
        return "" if exchange is None else exchange.request_id

    def new(self) -> HttpExchange:
        return HttpExchange(self.next_number(), self)

    def next_number(self) -> int:
        self._last = self._last % 0x7FFFFFFF + 1
        return self._last

    def open(self, exchange: HttpExchange) -> None:
        if self._ended_by is not None:
            raise self._ended_by.again()
        if len(self._open) >= CAPACITY:
            raise RuntimeError("a guest has more exchanges than it can have")
        self._open[exchange.number] = exchange

    def tell(self, kind: bytes, number: int, payload: bytes = b"") -> int:
        """Something new for the guest; which item of all it is."""
        self._told += 1
        told = self._told
        if kind == b"c":
            self._last_end = told
        self._news.append(_ITEM.pack(kind, number, len(payload)) + payload)
        if self._waits:
            self._answer()
        return told

    def fail(self, error: IsopodError) -> None:
        """The guest is gone."""
        self._ended_by = self._ended_by or error
        self._stop_waiting()
        self._waits = False
        self._news.clear()
        exchanges, self._open = self._open, {}
        for exchange in exchanges.values():
            exchange.guest_ended(error)

    def end_guest(self, error: IsopodError) -> None:
        self._guest.end(error)

    def app_error(self, said: bytes) -> IsopodError:
        return self._guest.app_error(said)

    # -- the guest's calls ------------------------------------------------------------------

    def on_wait(self, frame: bytes) -> None:
        """A W frame. Raises GuestProtocolError."""
        try:
            _, wait_ms, count = _WAIT.unpack_from(frame)
            at = _WAIT.size + count * _SOCKET.size
            if len(frame) < at or count > _MAX_SOCKETS:
                raise struct.error
            wanted = dict(_SOCKET.iter_unpack(frame[_WAIT.size : at]))
        except struct.error:
            raise GuestProtocolError("the guest sent a wait that is none") from None
        for kind, number, payload in items(frame, at):
            exchange = self._open.get(number)
            if exchange is None:
                raise GuestProtocolError(f"the guest spoke of exchange {number}, which is not open")
            exchange.said(kind, payload)
            if exchange.ended:
                del self._open[number]
        self._waits, self._wanted = True, wanted
        if not self._open:
            # All of it is of what is over, and the guest would run in nobody's name.
            self._news.clear()
        if self._news or (wait_ms == 0 and self._open):
            self._answer()
        elif self._open:
            self._wait(wait_ms)

    def _wait(self, wait_ms: int) -> None:
        connections = self._guest.connections()
        if self._wanted:
            if connections is None or connections.ready(self._wanted):
                self._answer()
                return
            self._stop_watching = connections.watch(self._wanted, self._answer)
        if wait_ms != _FOR_EVER:
            self._timer = self._loop.call_later(wait_ms / 1e3, self._answer)

    def _answer(self) -> None:
        if not self._waits:
            return
        self._stop_waiting()
        self._waits = False
        said, size = [], 0
        while self._news and size < _ANSWER_BYTES:
            one = self._news.popleft()
            said.append(one)
            size += len(one)
        connections = self._guest.connections()
        if self._wanted:
            ready = self._wanted if connections is None else connections.ready(self._wanted)
            said += [_ITEM.pack(b"s", number, 1) + bytes((mask,)) for number, mask in ready.items()]
        self._guest.answer(b"".join(said))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None


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


def items(data: bytes, at: int) -> list[tuple[bytes, int, bytes]]:
    """What a guest says in one call. Raises GuestProtocolError."""
    found: list[tuple[bytes, int, bytes]] = []
    while at < len(data):
        if len(found) >= _MAX_ITEMS:
            raise GuestProtocolError(f"the guest sent more than {_MAX_ITEMS:,} items at once")
        try:
            kind, number, size = _ITEM.unpack_from(data, at)
        except struct.error:
            raise GuestProtocolError("the guest sent a part of an item") from None
        at += _ITEM.size
        if size > len(data) - at:
            raise GuestProtocolError("the guest sent an item longer than its frame")
        found.append((kind, number, data[at : at + size]))
        at += size
    return found
