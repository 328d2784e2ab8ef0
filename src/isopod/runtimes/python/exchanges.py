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

from isopod.errors import GuestProtocolError, IsopodError
from isopod.host.connections import Connections
from isopod.runtimes.python.http_exchange import HttpExchange

CAPACITY = 1000  # an app's own concurrency is smaller; what a guest is asked to hold has an end
# Of one frame: it is taken in one step of the loop, which has other guests.
_MAX_ITEMS = 8192
_MAX_SOCKETS = 2048
_ANSWER_BYTES = 2 << 20
_FOR_EVER = 0xFFFFFFFF
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
