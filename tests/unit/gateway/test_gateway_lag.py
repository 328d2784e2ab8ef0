import asyncio
import time

from isopod.gateway import lag as lag_module
from isopod.gateway.lag import LoopLag


async def until(condition, *, block_s: float = 0.0) -> None:
    async with asyncio.timeout(60):
        while not condition():
            if block_s:
                time.sleep(block_s)
            await asyncio.sleep(0)


def test_a_loop_that_is_held_up_for_long_is_late(monkeypatch):
    monkeypatch.setattr(lag_module, "_EVERY_S", 0.01)

    async def main() -> None:
        lag = LoopLag()
        await until(lambda: lag.seconds > 0.03, block_s=0.05)
        assert lag.take_worst() > 0.03
        await until(lambda: lag.seconds < 0.03)
        lag.close()

    asyncio.run(main())


def test_a_loop_that_was_held_up_once_is_not(monkeypatch):
    async def main() -> None:
        lag = LoopLag()
        for late in (0.0, 9.0, 0.0):
            lag._timer.cancel()
            lag._look(asyncio.get_running_loop().time() - late)
            assert lag.seconds < 1
        assert lag.take_worst() >= 9
        assert lag.take_worst() < 1
        lag.close()

    asyncio.run(main())
