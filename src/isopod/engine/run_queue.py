"""Who runs next: first whose share is due, then which of its guests.

A *share* is whom guests belong to (an opaque name; the gateway says the tenant's). Between shares
it is start-time fair queueing: each has a virtual time that grows by what its guests used, and the
one that is furthest behind is next. So a share with 500 runnable guests gets what one with a single
guest gets, and who uses less than its part is served at once. Who comes back after a pause starts
at the virtual time of now, less a small credit: sleeping saves nothing up (Goyal, Vin and Cheng
1996, "Start-time Fair Queueing", section 2).

Within a share, guests that were woken go before those that used up their slice, in the order they
were woken; after some of them one that computes has its turn.

A plain data structure: it knows neither clocks nor guests.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Generic, TypeVar

_T = TypeVar("_T")

# What a share that comes back may use before the others have theirs: some slices of 2 ms, so that
# a short answer beside many who compute is not cut into rounds.
CREDIT_S = 0.008
# So many woken guests run before one that computes gets a slice.
WOKEN_IN_A_ROW = 16
_SHARES_TO_SWEEP = 256


class _Share(Generic[_T]):
    __slots__ = ("active", "computing", "in_a_row", "used", "woken")

    def __init__(self) -> None:
        self.woken: deque[_T] = deque()
        self.computing: deque[_T] = deque()
        self.in_a_row = 0
        self.used = 0.0  # its virtual time
        self.active = False  # has guests in the queue, or one that runs


class RunQueue(Generic[_T]):
    """`push`; then `pop` and, after it ran, `charge`, in turns. Times are in seconds."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share[_T]] = {}
        self._due: list[tuple[float, int, _Share[_T]]] = []  # a heap
        self._count = 0
        self._order = 0
        self._now = 0.0  # virtual: of the share that ran last
        self._running: _Share[_T] | None = None
        self._sweep_at = _SHARES_TO_SWEEP

    def __len__(self) -> int:
        return self._count

    @property
    def shares(self) -> int:
        """How many are remembered."""
        return len(self._shares)

    def push(self, item: _T, share: str, *, computes: bool) -> None:
        one = self._shares.get(share)
        if one is None:
            one = self._new(share)
        (one.computing if computes else one.woken).append(item)
        self._count += 1
        if not one.active:
            one.active = True
            one.used = max(one.used, self._now - CREDIT_S)
            self._put(one)

    def pop(self) -> _T | None:
        """The next to run. None when there is none."""
        if not self._due:
            return None
        used, _, one = heappop(self._due)
        self._now = max(self._now, used)
        self._running = one
        self._count -= 1
        if one.woken and (one.in_a_row < WOKEN_IN_A_ROW or not one.computing):
            one.in_a_row += 1
            return one.woken.popleft()
        one.in_a_row = 0
        return one.computing.popleft()

    def charge(self, spent_s: float) -> None:
        """What the one popped last has used."""
        one, self._running = self._running, None
        if one is None:
            return
        one.used += spent_s
        if one.woken or one.computing:
            self._put(one)
            return
        one.active = False
        if not self._due:
            self._now = max(self._now, one.used)  # what was used alone is held against nobody

    def clear(self) -> None:
        self._shares.clear()
        self._due.clear()
        self._count = 0
        self._running = None

    def _put(self, one: _Share[_T]) -> None:
        # Equals in the order in which they came, and shares are never compared.
        self._order += 1
        heappush(self._due, (one.used, self._order, one))

    def _new(self, share: str) -> _Share[_T]:
        if len(self._shares) >= self._sweep_at:
            self._sweep()
        one = self._shares[share] = _Share()
        return one

    def _sweep(self) -> None:
        """Forget who would come back like somebody new, but for a part of the credit."""
        now = self._now
        for name in [n for n, one in self._shares.items() if not one.active and one.used <= now]:
            del self._shares[name]
        self._sweep_at = max(_SHARES_TO_SWEEP, 2 * len(self._shares))
