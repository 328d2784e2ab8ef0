"""Who waits gets an instance or an error, in every order of events; no instance is ever lost."""

import asyncio
import random

import pytest

from isopod.errors import (
    AppFailedToStart,
    AppStarting,
    EngineError,
    IsopodError,
    NodeBusy,
    NodeDraining,
    Overloaded,
)
from isopod.gateway import app_pool
from isopod.gateway.app_pool import AppPool
from isopod.gateway.turns import Turns


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def ended(*tasks: asyncio.Task) -> list:
    async with asyncio.timeout(60):
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_an_instance_is_started_once_and_used_again(stage, route):
    async def main() -> None:
        pool = AppPool(route(), stage.slot, Turns(8))
        first = await pool.acquire("r1")
        assert first.start_ms >= 0
        assert first.slot.request_id == "r1"
        pool.release(first.slot, reusable=True)
        assert first.slot.request_id == ""
        second = await pool.acquire("r2")
        assert second.slot is first.slot
        assert (second.queue_ms, second.start_ms) == (0.0, 0.0)
        assert (pool.cold_starts, pool.requests, len(stage.guests)) == (1, 2, 1)
        pool.release(second.slot, reusable=False)
        assert stage.alive == 0
        assert stage.removed == 1
        await pool.close()

    asyncio.run(main())


def test_those_who_wait_are_served_in_their_order(stage, route):
    async def main() -> None:
        pool = AppPool(route(max_instances=1), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        order: list[int] = []

        async def one(number: int) -> None:
            acquired = await pool.acquire(f"r{number}")
            order.append(number)
            pool.release(acquired.slot, reusable=True)

        tasks = [asyncio.create_task(one(number)) for number in range(1, 5)]
        await until(lambda: pool.queued == 4)
        pool.release(held.slot, reusable=True)
        await ended(*tasks)
        assert order == [1, 2, 3, 4]
        assert len(stage.guests) == 1
        await pool.close()

    asyncio.run(main())


def test_the_queue_has_an_end(stage, route):
    async def main() -> None:
        pool = AppPool(route(max_instances=1, queue=2), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        tasks = [asyncio.create_task(pool.acquire("r")) for _ in range(3)]
        await until(lambda: any(task.done() for task in tasks))
        assert pool.queued == 2
        assert isinstance(tasks[2].exception(), Overloaded)
        pool.release(held.slot, reusable=True)
        await pool.close()
        await ended(*tasks)

    asyncio.run(main())


def test_who_waited_as_long_as_a_request_may_take_is_told(stage, route):
    async def main() -> None:
        pool = AppPool(route(max_instances=1, deadline_ms=20), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        with pytest.raises(Overloaded, match=r"free within 0\.02 s"):
            await pool.acquire("r1")
        assert pool.queued == 0
        pool.release(held.slot, reusable=True)
        assert len(pool.idle) == 1
        await pool.close()

    asyncio.run(main())


def test_who_waited_so_long_for_the_first_instance_is_told_that_the_app_starts(stage, route):
    async def main() -> None:
        stage.boots = asyncio.Event()
        pool = AppPool(route(max_instances=1, deadline_ms=20), stage.slot, Turns(8))
        with pytest.raises(AppStarting, match=r"not ready within 0\.02 s"):
            await pool.acquire("r1")
        stage.boots.set()
        await until(lambda: pool.idle)
        held = await pool.acquire("r2")
        with pytest.raises(Overloaded):
            await pool.acquire("r3")
        pool.release(held.slot, reusable=True)
        await pool.close()

    asyncio.run(main())


def test_who_gives_up_in_the_moment_it_is_given_an_instance_passes_it_on(stage, route):
    async def main() -> None:
        pool = AppPool(route(max_instances=1), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        first = asyncio.create_task(pool.acquire("r1"))
        second = asyncio.create_task(pool.acquire("r2"))
        await until(lambda: pool.queued == 2)
        pool.release(held.slot, reusable=True)  # given to the first, which has not run yet
        first.cancel()
        acquired = await second
        assert acquired.slot is held.slot
        pool.release(acquired.slot, reusable=True)
        assert (len(pool.idle), len(pool.busy)) == (1, 0)
        await pool.close()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(25))
def test_cancellations_never_lose_an_instance(stage, route, seed):
    async def main() -> None:
        chance = random.Random(seed)
        pool = AppPool(route(max_instances=3, queue=100), stage.slot, Turns(8))

        async def one() -> None:
            acquired = await pool.acquire("r")
            try:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
            finally:
                pool.release(acquired.slot, reusable=chance.random() < 0.8)

        tasks = []
        for _ in range(60):
            tasks.append(asyncio.create_task(one()))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await ended(*tasks)
        await until(lambda: not pool.starting)
        assert not pool.busy
        assert pool.queued == 0
        assert stage.alive == len(pool.idle) <= 3
        for task in tasks:
            assert task.cancelled() or task.exception() is None
        await pool.close()
        assert stage.alive == 0
        assert stage.removed == len(stage.guests)

    asyncio.run(main())


def test_a_version_that_is_replaced_still_serves_those_who_wait_for_it(stage, route):
    async def main() -> None:
        pool = AppPool(route(max_instances=1), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        tasks = [asyncio.create_task(pool.acquire(f"r{n}")) for n in range(2)]
        await until(lambda: pool.queued == 2)
        pool.retire()
        pool.release(held.slot, reusable=True)
        first = await tasks[0]
        pool.release(first.slot, reusable=False)  # its guest died: another is started for the rest
        second = await asyncio.wait_for(tasks[1], 60)
        pool.release(second.slot, reusable=True)
        assert stage.alive == 0
        assert not pool.slots
        await pool.close()

    asyncio.run(main())


def test_an_instance_that_starts_for_a_replaced_version_ends_when_nobody_wants_it(stage, route):
    async def main() -> None:
        stage.boots = asyncio.Event()
        pool = AppPool(route(), stage.slot, Turns(8))
        waiting = asyncio.create_task(pool.acquire("r0"))
        await until(lambda: stage.guests)
        pool.retire()
        waiting.cancel()
        await ended(waiting)
        stage.boots.set()
        await until(lambda: not pool.starting)
        assert stage.alive == 0
        await pool.close()

    asyncio.run(main())


def test_all_who_wait_for_a_boot_are_told_that_it_failed_each_by_an_error_of_its_own(stage, route):
    async def main() -> None:
        stage.boot_error = AppFailedToStart("no", hint="h", details={"traceback": "t"})
        pool = AppPool(route(), stage.slot, Turns(8))
        tasks = [asyncio.create_task(pool.acquire("r")) for _ in range(3)]
        errors = await ended(*tasks)
        # ... and for a moment so is who comes after, without another boot.
        with pytest.raises(AppFailedToStart) as later:
            await pool.acquire("r")
        errors.append(later.value)
        assert {error.code for error in errors} == {"app_failed_to_start"}
        assert len({id(error) for error in errors}) == 4
        assert errors[0].details == {"traceback": "t"}
        assert pool.cold_starts == 1
        assert not pool.starting
        await pool.close()

    asyncio.run(main())


def test_a_boot_that_fails_for_a_reason_of_the_node_is_an_error_not_a_silence(stage, route, caplog):
    async def main() -> None:
        stage.boot_error = OSError(24, "Too many open files")
        pool = AppPool(route(), stage.slot, Turns(8))
        with pytest.raises(EngineError):
            await asyncio.wait_for(pool.acquire("r"), 60)
        assert "Too many open files" in caplog.text
        await pool.close()

    asyncio.run(main())


def test_a_boot_that_never_ends_is_ended(stage, route, monkeypatch):
    monkeypatch.setattr(app_pool, "BOOT_DEADLINE_S", 0.02)

    async def main() -> None:
        stage.boots = asyncio.Event()
        pool = AppPool(route(), stage.slot, Turns(8))
        with pytest.raises(IsopodError, match="did not start within"):
            await pool.acquire("r")
        assert stage.alive == 0
        await pool.close()

    asyncio.run(main())


def test_without_memory_for_one_more_those_who_wait_use_the_ones_there_are(stage, route):
    async def main() -> None:
        room = [True]

        def new_slot(of):
            if not room[0]:
                raise NodeBusy("full")
            return stage.slot(of)

        pool = AppPool(route(), new_slot, Turns(8))
        held = await pool.acquire("r0")
        held.slot.guest.waiting = True  # the plan would start another
        room[0] = False
        waiting = asyncio.create_task(pool.acquire("r1"))
        await until(lambda: pool.queued)
        pool.release(held.slot, reusable=True)
        acquired = await waiting
        pool.release(acquired.slot, reusable=False)
        with pytest.raises(NodeBusy):
            await pool.acquire("r2")
        await pool.close()

    asyncio.run(main())


def test_a_pool_that_closes_ends_everything_and_tells_everybody(stage, route):
    async def main() -> None:
        stage.boots = asyncio.Event()
        pool = AppPool(route(), stage.slot, Turns(8))
        waiting = [asyncio.create_task(pool.acquire("r")) for _ in range(2)]
        await until(lambda: stage.guests)
        await pool.close()
        assert [type(error) for error in await ended(*waiting)] == [NodeDraining] * 2
        assert stage.alive == 0
        assert stage.removed == 1
        with pytest.raises(NodeDraining):
            await pool.acquire("r")
        assert not pool.slots

    asyncio.run(main())


def test_sleep_ends_the_idle_ones_only(stage, route):
    async def main() -> None:
        pool = AppPool(route(), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        held.slot.guest.waiting = True
        other = await pool.acquire("r1")
        assert other.slot is not held.slot
        pool.release(other.slot, reusable=True)
        assert pool.sleep() == 1
        assert pool.sleep() == 0
        assert stage.alive == 1
        pool.release(held.slot, reusable=True)
        await pool.close()

    asyncio.run(main())


def test_a_guest_that_is_not_ready_is_never_kept(stage, route):
    async def main() -> None:
        pool = AppPool(route(), stage.slot, Turns(8))
        held = await pool.acquire("r0")
        held.slot.guest.idle = False
        pool.release(held.slot, reusable=True)
        assert stage.alive == 0
        await pool.close()

    asyncio.run(main())


def test_an_instance_with_room_has_several_requests_and_one_that_is_blocked_none(stage, route):
    async def main() -> None:
        stage.capacity = 3
        pool = AppPool(route(), stage.slot, Turns(8))
        held = [(await pool.acquire(f"r{number}")).slot for number in range(3)]
        assert len({slot.id for slot in held}) == 1
        guest = stage.guests[0]
        guest.waiting = True
        fourth = asyncio.create_task(pool.acquire("r3"))
        other = (await fourth).slot  # full: another
        assert other is not held[0]
        pool.release(held.pop(), reusable=True)
        stage.guests[1].waiting = True
        # The one with fewest; a blocked one has no room.
        assert (await pool.acquire("r4")).slot is other
        stage.guests[1].blocked = True
        assert (await pool.acquire("r5")).slot is held[0]
        assert [slot.in_flight for slot in (held[0], other)] == [3, 2]
        # An unhealthy one takes no more, and ends with its last.
        pool.release(other, reusable=False)
        stage.guests[1].blocked = False
        assert not other.has_room
        waits = asyncio.create_task(pool.acquire("r6"))
        await until(lambda: pool.queued == 1)
        pool.release(other, reusable=True)
        assert stage.guests[1].closed
        assert (await waits).slot not in (held[0], other)
        for slot in (*held, held[0], waits.result().slot):
            pool.release(slot, reusable=True)
        assert len(pool.idle) == 2
        assert not pool.busy
        # One that ended by itself meanwhile is not lent.
        stage.guests[0].idle = stage.guests[2].idle = False
        await pool.acquire("r7")
        assert len(stage.guests) == 4
        await pool.close()

    asyncio.run(main())
