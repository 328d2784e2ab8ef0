import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from isopod.errors import NodeBusy
from isopod.gateway import fleet as fleet_module
from isopod.gateway.fleet import Fleet
from isopod.model.ids import Digest
from isopod.model.snapshot import plain as plain_boot

MIB = 1 << 20


@asynccontextmanager
async def fleet_of(stage, *, budget_mib: int = 1000, max_instances: int = 99):
    fleet = Fleet(
        make=stage.make,
        logs_dir=stage.logs,
        budget_bytes=budget_mib * MIB,
        max_instances=max_instances,
    )
    try:
        yield fleet
    finally:
        await fleet.close()
        assert stage.alive == 0
        assert stage.removed == len(stage.guests)


async def serve(fleet: Fleet, route) -> str:
    """One request; the id of the instance that took it."""
    pool = fleet.pool(route)
    acquired = await pool.acquire("r")
    pool.release(acquired.slot, reusable=True)
    return acquired.slot.id


def test_an_instance_ends_when_it_was_idle_for_long_enough(stage, route):
    async def main() -> None:
        async with fleet_of(stage) as fleet:
            await serve(fleet, route("short", idle_s=30))
            await serve(fleet, route("long", idle_s=60))
            for pool in fleet._all():
                pool.idle[0].used_at -= 45
            fleet.reap()
            assert [one["app"] for one in fleet.status()["instances"]] == ["long"]
            assert fleet.sleep("long") == 1
            assert fleet.status()["instances"] == []
            assert fleet.status()["apps"]["short"]["cold_starts"] == 1

    asyncio.run(main())


def test_the_reaper_goes_on_after_an_error(stage, route, monkeypatch, caplog):
    monkeypatch.setattr(fleet_module, "_REAP_EVERY_S", 0)

    async def main() -> None:
        async with fleet_of(stage) as fleet:
            await serve(fleet, route(idle_s=0))
            reap, failures = fleet.reap, [OSError("once")]

            def once() -> None:
                if failures:
                    raise failures.pop()
                reap()

            monkeypatch.setattr(fleet, "reap", once)
            async with asyncio.timeout(5):
                while stage.alive:
                    await asyncio.sleep(0)
        assert "could not be ended" in caplog.text

    asyncio.run(main())


def test_the_least_recently_used_ends_when_memory_is_needed(stage, route):
    async def main() -> None:
        async with fleet_of(stage, budget_mib=60) as fleet:
            await serve(fleet, route("older"))
            await serve(fleet, route("newer"))
            for pool in fleet._all():
                pool.idle[0].used_at -= 10 if pool.route.name == "older" else 5
            await serve(fleet, route("third"))  # counts as 48 MiB until it runs
            assert {one["app"] for one in fleet.status()["instances"]} == {"newer", "third"}

    asyncio.run(main())


def test_a_guest_that_grew_makes_idle_ones_end(stage, route):
    async def main() -> None:
        async with fleet_of(stage, budget_mib=100) as fleet:
            await serve(fleet, route("idle"))
            pool = fleet.pool(route("busy"))
            held = await pool.acquire("r")
            held.slot.guest.memory_bytes = 200 * MIB
            fleet.reap()  # cannot help it all, and does what it can not: busy ones stay
            held.slot.guest.memory_bytes = 95 * MIB
            fleet.reap()
            assert [one["app"] for one in fleet.status()["instances"]] == ["busy"]
            pool.release(held.slot, reusable=True)

    asyncio.run(main())


def test_when_all_memory_is_busy_the_answer_is_that_the_node_is_busy(stage, route):
    async def main() -> None:
        async with fleet_of(stage, budget_mib=50) as fleet:
            pool = fleet.pool(route("one"))
            held = await pool.acquire("r")
            with pytest.raises(NodeBusy):
                await serve(fleet, route("two"))
            pool.release(held.slot, reusable=True)
            await serve(fleet, route("two"))

    asyncio.run(main())


def test_beyond_the_open_files_the_least_recently_used_instance_ends(stage, route):
    async def main() -> None:
        async with fleet_of(stage, max_instances=2) as fleet:
            await serve(fleet, route("older"))
            await serve(fleet, route("newer"))
            for pool in fleet._all():
                pool.idle[0].used_at -= 10 if pool.route.name == "older" else 5
            await serve(fleet, route("third"))
            assert {one["app"] for one in fleet.status()["instances"]} == {"newer", "third"}

    asyncio.run(main())


def test_when_all_open_files_are_busy_the_answer_is_that_the_node_is_busy(stage, route):
    async def main() -> None:
        async with fleet_of(stage, max_instances=1) as fleet:
            pool = fleet.pool(route("one"))
            held = await pool.acquire("r")
            with pytest.raises(NodeBusy):
                await serve(fleet, route("two"))
            pool.release(held.slot, reusable=True)
            await serve(fleet, route("two"))

    asyncio.run(main())


def test_a_new_version_replaces_the_pool_and_the_old_one_ends_its_requests(stage, route):
    async def main() -> None:
        async with fleet_of(stage) as fleet:
            old = fleet.pool(route(version=1))
            held = await old.acquire("r")
            new = fleet.pool(route(version=2))
            assert new is not old
            assert old.retired
            assert len(fleet.status()["instances"]) == 1
            fleet.reap()
            assert len(fleet.status()["instances"]) == 1
            old.release(held.slot, reusable=True)
            fleet.reap()
            assert fleet._retired == []
            assert stage.alive == 0

    asyncio.run(main())


def test_a_new_snapshot_of_the_same_version_is_for_the_next_instance(stage, route):
    async def main() -> None:
        async with fleet_of(stage) as fleet:
            old = route("a")
            warm = await serve(fleet, old)
            image = replace(plain_boot(""), image=Digest("1" * 64), runtime=Digest("2" * 64))
            renewed = replace(old, snapshot=image)
            fleet.forget({"a": renewed})
            pool = fleet.pool(renewed)
            assert pool.route.snapshot == image
            assert await serve(fleet, renewed) == warm  # it serves on
            assert fleet.pool(old) is pool and pool.route.snapshot is None

    asyncio.run(main())


def test_a_deleted_app_is_forgotten(stage, route):
    async def main() -> None:
        async with fleet_of(stage) as fleet:
            await serve(fleet, route())
            fleet.forget({"shop": route(), "other": None})
            assert fleet.names == ["shop"]
            fleet.forget({"shop": None})
            assert fleet.names == []
            assert stage.alive == 0

    asyncio.run(main())


def test_the_log_of_a_sleeping_app_is_closed(stage, route):
    async def main() -> None:
        async with fleet_of(stage) as fleet:
            await serve(fleet, route())
            fleet.log(route()).write("isopod", "hello", version=1)
            fleet.reap()
            log = fleet._logs["shop"]
            assert log._fd >= 0
            fleet.sleep("shop")
            fleet.reap()
            assert log._fd < 0
            assert fleet._logs == {}

    asyncio.run(main())
