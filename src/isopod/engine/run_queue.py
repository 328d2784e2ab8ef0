"""Who runs next: first whose share is due, then which of its apps, then which of that one's guests.

A *share* is whom guests belong to, and which of theirs they are (opaque names; the gateway says the
tenant's and the app's). Between tenants it is start-time fair queueing: each has a virtual time
that grows by what its guests used, and the one that is furthest behind is next. So a tenant with
500 runnable guests gets what one with a single guest gets, and who uses less than its part is
served at once. Who comes back after a pause starts at the virtual time of now, less a small credit:
sleeping saves nothing up (Goyal, Vin and Cheng 1996, "Start-time Fair Queueing", section 2).
Between the apps of one tenant it is the same again (Goyal, Guo and Vin 1996, "A hierarchical CPU
scheduler"): one that a thousand requests woke does not hold up its neighbour's single one.

Of one app's, guests that were woken go before those that used up their slice, in the order they
were woken; after some of them one that computes has its turn.

A plain data structure: it knows neither clocks nor guests.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Generic, TypeVar

_T = TypeVar("_T")

# Whose, and which of theirs.
Share = tuple[str, str]
# What one that comes back may use before the others have theirs: some slices of 2 ms, so that
# a short answer beside many who compute is not cut into rounds.
CREDIT_S = 0.008
# So many woken guests run before one that computes gets a slice.
WOKEN_IN_A_ROW = 16
_TO_SWEEP = 256


class _Part:
    """Of a level's time."""

    __slots__ = ("active", "used")

    def __init__(self) -> None:
        self.used = 0.0  # its virtual time
        self.active = False  # has guests in the queue, or one that runs


_P = TypeVar("_P", bound=_Part)


class _Level(Generic[_P]):
    """Parts that share one time fairly, each known by its name."""

    __slots__ = ("_due", "_order", "_sweep_at", "now", "parts")

    def __init__(self) -> None:
        self.parts: dict[str, _P] = {}
        self.now = 0.0  # virtual: of the part that ran last
        self._due: list[tuple[float, int, _P]] = []  # a heap
        self._order = 0
        self._sweep_at = _TO_SWEEP

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, name: str, part: _P) -> _P:
        if len(self.parts) >= self._sweep_at:
            self._sweep()
        self.parts[name] = part
        return part

    def enter(self, part: _P) -> None:
        """It has guests again."""
        part.active = True
        part.used = max(part.used, self.now - CREDIT_S)
        self._put(part)

    def next(self) -> _P:
        used, _, part = heappop(self._due)
        self.now = max(self.now, used)
        return part

    def back(self, part: _P, spent_s: float, *, goes_on: bool) -> None:
        """The one that `next` gave, after its turn."""
        part.used += spent_s
        if goes_on:
            self._put(part)
            return
        part.active = False
        if not self._due:
            self.now = max(self.now, part.used)  # what was used alone is held against nobody

    def _put(self, part: _P) -> None:
        # Equals in the order in which they came, and parts are never compared.
        self._order += 1
        heappush(self._due, (part.used, self._order, part))

    def _sweep(self) -> None:
        """Forget who would come back like somebody new, but for a part of the credit."""
        now = self.now
        gone = [name for name, one in self.parts.items() if not one.active and one.used <= now]
        for name in gone:
            del self.parts[name]
        self._sweep_at = max(_TO_SWEEP, 2 * len(self.parts))


class _App(_Part, Generic[_T]):
    __slots__ = ("computing", "in_a_row", "woken")

    def __init__(self) -> None:
        super().__init__()
        self.woken: deque[_T] = deque()
        self.computing: deque[_T] = deque()
        self.in_a_row = 0

    def pop(self) -> _T:
        if self.woken and (self.in_a_row < WOKEN_IN_A_ROW or not self.computing):
            self.in_a_row += 1
            return self.woken.popleft()
        self.in_a_row = 0
        return self.computing.popleft()


class _Tenant(_Part, Generic[_T]):
    __slots__ = ("apps",)

    def __init__(self) -> None:
        super().__init__()
        self.apps: _Level[_App[_T]] = _Level()


class RunQueue(Generic[_T]):
    """`push`; then `pop` and, after it ran, `charge`, in turns. Times are in seconds."""

    def __init__(self) -> None:
        self._tenants: _Level[_Tenant[_T]] = _Level()
        self._count = 0
        self._running: tuple[_Tenant[_T], _App[_T]] | None = None

    def __len__(self) -> int:
        return self._count

    def push(self, item: _T, share: Share, *, computes: bool) -> None:
        tenants, (whose, which) = self._tenants, share
        tenant = tenants.parts.get(whose) or tenants.add(whose, _Tenant())
        app = tenant.apps.parts.get(which) or tenant.apps.add(which, _App())
        (app.computing if computes else app.woken).append(item)
        self._count += 1
        if not app.active:
            tenant.apps.enter(app)
        if not tenant.active:
            tenants.enter(tenant)

    def pop(self) -> _T | None:
        """The next to run. None when there is none."""
        if not self._tenants:
            return None
        tenant = self._tenants.next()
        app = tenant.apps.next()
        self._running = tenant, app
        self._count -= 1
        return app.pop()

    def charge(self, spent_s: float) -> None:
        """What the one popped last has used."""
        if self._running is None:
            return
        (tenant, app), self._running = self._running, None
        tenant.apps.back(app, spent_s, goes_on=bool(app.woken or app.computing))
        self._tenants.back(tenant, spent_s, goes_on=bool(tenant.apps))

    def clear(self) -> None:
        self._tenants = _Level()
        self._count = 0
        self._running = None
