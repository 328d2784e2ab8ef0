"""Whose turn it is to do what takes a core for a while: a few at once, and no tenant has all of it.
And seats: what may go on for ever is bounded, and nobody waits for it.

Who waits, waits behind at most a turn's share of each other tenant, however much those ask for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from isopod.errors import TooManyRequests
from isopod.model.tenant import TenantName

_RETRY_S = 5  # what takes turns takes seconds


class Turns:
    """`at_once` on the node, `per_tenant` of them for one tenant, of which `waiting` may wait."""

    def __init__(self, *, at_once: int, per_tenant: int, waiting: int, what: str) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._per_tenant, self._most, self._what = per_tenant, per_tenant + waiting, what
        self._asked: dict[TenantName, int] = {}
        self._of: dict[TenantName, asyncio.Semaphore] = {}

    def must_wait(self, tenant: TenantName) -> bool:
        return self._asked.get(tenant, 0) >= self._per_tenant or self._all.locked()

    @asynccontextmanager
    async def turn(self, tenant: TenantName) -> AsyncIterator[None]:
        """TooManyRequests when too many of the tenant's wait already."""
        asked = self._asked.get(tenant, 0)
        if asked >= self._most:
            raise TooManyRequests(
                f"{asked} {self._what} of this tenant are under way or wait",
                details={"retry_after_s": _RETRY_S},
            )
        self._asked[tenant] = asked + 1
        mine = self._of.setdefault(tenant, asyncio.Semaphore(self._per_tenant))
        try:
            async with mine, self._all:
                yield
        finally:
            self._asked[tenant] -= 1
            if not self._asked[tenant]:
                del self._asked[tenant], self._of[tenant]


class Seat:
    """Is held until it is left, or nobody knows of it any more: an answer whose caller hung up
    before it began is never run, and so never comes to its end."""

    __slots__ = ("__weakref__", "_of", "key")

    def __init__(self, key: str, of: weakref.WeakSet[Seat]) -> None:
        self.key, self._of = key, of
        of.add(self)

    def leave(self) -> None:
        self._of.discard(self)


class Seats:
    """`at_once` on the node, `per_key` of them for one caller. Of one thread only."""

    def __init__(self, *, at_once: int, per_key: int, what: str) -> None:
        self._at_once, self._per_key, self._what = at_once, per_key, what
        self._taken: weakref.WeakSet[Seat] = weakref.WeakSet()

    def take(self, key: str) -> Seat:
        """TooManyRequests."""
        mine = sum(seat.key == key for seat in self._taken)
        if mine >= self._per_key or len(self._taken) >= self._at_once:
            # How many others have is not for everybody to know.
            whose = f"{mine} of this tenant" if mine >= self._per_key else "as many as the node has"
            raise TooManyRequests(
                f"too many {self._what} are open: {whose}",
                hint=f"end some of the {self._what} first",
                details={"retry_after_s": _RETRY_S},
            )
        return Seat(key, self._taken)
