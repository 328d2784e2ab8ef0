"""Turns: so many restores at once in a worker, and none may keep its turn for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A restore takes 2 ms. One that runs an app's own hook may take for ever: it goes on without a
# turn, as one of many that compute, and the others go on too.
MAX_HOLD_S = 0.1


class Turns:
    """`async with turns.take():` waits for a turn and holds it until the end of the block, or
    `MAX_HOLD_S` at most."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        await self._free.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(MAX_HOLD_S, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
