"""Threads for what waits for the disk, fair between tenants: who asks for a thousand things delays
another's by a few."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class FairThreads:
    """`count` at once, `of_one` tenant's at most. The next is for who has the fewest, and among
    equals for who was given none for longest. Used on one loop."""

    def __init__(self, count: int, *, of_one: int, name: str) -> None:
        self._free = count
        self._of_one = of_one
        self._running: Counter[str] = Counter()
        # By tenant; the one that was given a thread last is at the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, tenant: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Cancelled, it goes on in its thread, which stays this tenant's until then."""
        if not self._free or self._waiting or self._running[tenant] >= self._of_one:
            await self._wait(tenant)
        else:
            self._take(tenant)
        running = asyncio.wrap_future(self._threads.submit(call, *args, **kwargs))

        def ended(_: object) -> None:
            if not running.cancelled():
                running.exception()  # for a caller that is gone
            self._give_back(tenant)

        running.add_done_callback(ended)
        return await asyncio.shield(running)

    async def _wait(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(tenant)  # given in the very moment it gave up
            raise

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._running[tenant] += 1

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._give()

    def _give(self) -> None:
        while self._free:
            may = [one for one in self._waiting if self._running[one] < self._of_one]
            if not may:
                return
            tenant = min(may, key=self._running.__getitem__)
            waiting = self._waiting.pop(tenant)
            turn = waiting.popleft()
            if waiting:
                self._waiting[tenant] = waiting
            if not turn.done():  # else its task was cancelled
                self._take(tenant)
                turn.set_result(None)
