import asyncio

from isopod.gateway import turns
from isopod.gateway.turns import Turns


def test_no_more_than_the_count_have_a_turn_at_once():
    async def main() -> None:
        taken, most, now = Turns(2), 0, 0

        async def one() -> None:
            nonlocal most, now
            async with taken.take("a"):
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
            async with taken.take("a"):
                await never.wait()

        hanging = asyncio.create_task(hang())
        await asyncio.sleep(0)
        async with asyncio.timeout(60), taken.take("a"):
            pass
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        # Given back once, not twice.
        async with taken.take("a"):
            waiting = asyncio.create_task(taken.take("a").__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(main())


def test_a_thousand_starts_of_one_tenant_delay_anothers_by_a_few():
    async def main() -> None:
        taken, order = Turns(2), []

        async def one(tenant: str) -> None:
            async with taken.take(tenant):
                order.append(tenant)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one("many")) for _ in range(1000)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(one("one")), asyncio.create_task(one("other"))]
        await asyncio.gather(*tasks)
        assert order.index("one") <= 8
        assert order.index("other") <= 8
        assert len(order) == 1002
        assert taken._waiting == {}
        assert not taken._held

    asyncio.run(main())


def test_who_gives_up_waiting_takes_no_turn():
    async def main() -> None:
        taken = Turns(1)

        async def one() -> None:
            async with taken.take("a"):
                await asyncio.Event().wait()

        holder = asyncio.create_task(one())
        await asyncio.sleep(0)
        waits, given = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        # Given its turn and cancelled in the same moment.
        holder.cancel()
        await asyncio.sleep(0)
        given.cancel()
        await asyncio.gather(holder, given, return_exceptions=True)
        async with asyncio.timeout(60), taken.take("b"):
            pass
        assert (taken._free, taken._waiting, +taken._held) == (1, {}, {})

    asyncio.run(main())
