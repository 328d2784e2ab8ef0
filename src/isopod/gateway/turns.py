"""Turns: so many restores at once in a worker, fair between tenants, and none may keep its turn for
long."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A restore takes 2 ms. One that runs an app's own hook may take for ever: it goes on without a
# turn, as one of many that compute, and the others go on too.
MAX_HOLD_S = 0.1


class Turns:
    """`async with turns.take(share):` waits for a turn and holds it until the end of the block, or
    `MAX_HOLD_S` at most. The next turn is for whoever holds the fewest, and among equals for who
    was given none for longest: a thousand starts of one tenant delay another's by a few."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        # By share; the one that was given a turn last is at the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def take(self, share: str) -> AsyncIterator[None]:
        await self._wait(share)
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._give_back(share)

        timer = asyncio.get_running_loop().call_later(MAX_HOLD_S, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()

    async def _wait(self, share: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(share, deque()).append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(share)  # given in the very moment it gave up
            else:
                self._forget(share, turn)
            raise

    def _forget(self, share: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(share)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[share]

    def _give_back(self, share: str) -> None:
        self._free += 1
        self._held[share] -= 1
        if not self._held[share]:
            del self._held[share]
        self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            share = min(self._waiting, key=self._held.__getitem__)
            waiting = self._waiting.pop(share)
            turn = waiting.popleft()
            if waiting:
                self._waiting[share] = waiting
            if not turn.done():  # else its task was cancelled just now
                self._free -= 1
                self._held[share] += 1
                turn.set_result(None)
