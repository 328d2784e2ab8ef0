"""Workers of one tenant alone: started when control has written routes for one, ended with them.

Control says it with a folder, `cordons/TENANT/routes/` (see `isopod.control.publishing`), so it may
be started again meanwhile, and this process asks nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import IsopodError, NameInvalid
from isopod.model.tenant import TenantName

_LOOK_S = 0.2
_AGAIN_S = 10.0  # after a worker that could not be started


@dataclass(frozen=True, slots=True)
class Plan:
    end: tuple[TenantName, ...]
    start: tuple[TenantName, ...]


def plan(wanted: Collection[TenantName], there: Collection[TenantName], *, most: int) -> Plan:
    """Who has one keeps it while it is wanted; no more than `most` at once, whatever is asked."""
    end = tuple(sorted(name for name in there if name not in wanted))
    free = max(0, most - (len(there) - len(end)))
    new = sorted(name for name in wanted if name not in there)
    return Plan(end, tuple(new[:free]))


class Cordons:
    """`start` and `end` return when the tenant's worker is ready, or gone."""

    def __init__(
        self,
        folder: Path,
        *,
        most: int,
        start: Callable[[TenantName], Awaitable[None]],
        end: Callable[[TenantName], Awaitable[None]],
        report: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._most = most
        self._start, self._end = start, end
        self._report = report
        self._there: set[TenantName] = set()
        self._failed: dict[TenantName, float] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.follow()
            await asyncio.sleep(_LOOK_S)

    async def follow(self) -> None:
        """Start and end workers, one after the other, so that they are what is wanted."""
        wanted = self._wanted()
        todo = plan(wanted, self._there, most=self._most)
        for tenant in todo.end:
            self._there.discard(tenant)
            await self._end(tenant)
        for tenant in todo.start:
            if time.monotonic() - self._failed.get(tenant, -_AGAIN_S) < _AGAIN_S:
                continue
            try:
                await self._start(tenant)
            except (IsopodError, OSError) as bad:
                self._failed[tenant] = time.monotonic()
                self._report(f"worker of {tenant}: {bad}")
            else:
                self._failed.pop(tenant, None)
                self._there.add(tenant)

    def _wanted(self) -> set[TenantName]:
        found = set()
        for file in self._folder.glob("*/routes/routes.db"):
            with contextlib.suppress(NameInvalid):
                found.add(TenantName.parse(file.parent.parent.name))
        return found
