import asyncio

from isopod.gateway import turns
from isopod.gateway.turns import Turns


def test_no_more_than_the_count_have_a_turn_at_once():
    async def main() -> None:
        taken, most, now = Turns(2), 0, 0

        async def one() -> None:
            nonlocal most, now
            async with taken.take():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(one() for _ in range(10)))
        assert most == 2

    asyncio.run(main())


def test_who_keeps_a_turn_for_ever_loses_it_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(turns, "MAX_HOLD_S", 0.01)

    async def main() -> None:
        taken = Turns(1)
        never = asyncio.Event()

        async def hang() -> None:
            async with taken.take():
                await never.wait()

        hanging = asyncio.create_task(hang())
        await asyncio.sleep(0)
        async with asyncio.timeout(5), taken.take():
            pass
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        # Given back once, not twice.
        async with taken.take():
            waiting = asyncio.create_task(taken.take().__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(main())
