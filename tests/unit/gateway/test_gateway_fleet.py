import asyncio
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from isopod.errors import IsopodError, NodeBusy, QuotaExceeded
from isopod.gateway import fleet as fleet_module
from isopod.gateway.admission import Admission
from isopod.gateway.commands import Commands
from isopod.gateway.fleet import Fleet
from isopod.gateway.quota import Quotas
from isopod.gateway.volumes import HeldVolumes
from isopod.model.ids import Digest
from isopod.model.snapshot import plain as plain_boot
from isopod.model.tenant import Quota, Tenant, TenantName
from isopod.model.volume import MountedVolume
from isopod.volumes.lease import VolumeFolder

MIB = 1 << 20


@asynccontextmanager
async def fleet_of(stage, quotas, *, budget_mib: int = 1000, max_instances: int = 99, counts=True):
    fleet = Fleet(
        make=stage.make,
        logs_dir=stage.logs,
        log_bytes=16 << 20,
        budget_bytes=budget_mib * MIB,
        max_instances=max_instances,
        quotas=quotas,
        meter=stage.usage.append,
        volumes=HeldVolumes(stage.logs, worker=0),
        held_bytes=lambda _: 0,
    )
    try:
        yield fleet
    finally:
        await fleet.close()
        if counts:
            assert stage.alive == 0
            assert stage.removed == len(stage.guests)


async def serve(fleet: Fleet, route) -> str:
    """One request; the id of the instance that took it."""
    pool = fleet.pool(route)
    acquired = await pool.acquire("r")
    pool.release(acquired.slot, reusable=True)
    return acquired.slot.id


def test_an_instance_ends_when_it_was_idle_for_long_enough(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
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


def test_the_reaper_goes_on_after_an_error(stage, route, quotas, monkeypatch, caplog):
    monkeypatch.setattr(fleet_module, "_REAP_EVERY_S", 0)

    reap, failures = Fleet.reap, [OSError("once")]

    def once(fleet: Fleet) -> None:
        if failures:
            raise failures.pop()
        reap(fleet)

    monkeypatch.setattr(Fleet, "reap", once)

    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            await serve(fleet, route(idle_s=0))
            async with asyncio.timeout(60):
                while stage.alive:
                    await asyncio.sleep(0)
        assert "could not be ended" in caplog.text

    asyncio.run(main())


def test_the_least_recently_used_ends_when_memory_is_needed(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=60) as fleet:
            await serve(fleet, route("older"))
            await serve(fleet, route("newer"))
            for pool in fleet._all():
                pool.idle[0].used_at -= 10 if pool.route.name == "older" else 5
            await serve(fleet, route("third"))  # counts as 48 MiB until it runs
            assert {one["app"] for one in fleet.status()["instances"]} == {"newer", "third"}

    asyncio.run(main())


def test_a_guest_that_grew_makes_idle_ones_end(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=100) as fleet:
            await serve(fleet, route("idle"))
            pool = fleet.pool(route("busy"))
            held = await pool.acquire("r")
            held.slot.guest.memory_bytes = 120 * MIB
            fleet.reap()  # cannot help it all, and does what it can not: busy ones stay
            held.slot.guest.memory_bytes = 95 * MIB
            fleet.reap()
            assert [one["app"] for one in fleet.status()["instances"]] == ["busy"]
            pool.release(held.slot, reusable=True)

    asyncio.run(main())


def test_nobody_ends_for_memory_that_one_who_ended_has_not_given_back_yet(
    stage, route, quotas, monkeypatch
):
    written = [0]
    monkeypatch.setattr(fleet_module, "_anonymous_bytes", lambda: written[0])

    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=100) as fleet:
            for app, idle_s in (("older", 10), ("newer", 5)):
                held = await fleet.pool(route(app)).acquire("r")
                held.slot.guest.memory_bytes = 60 * MIB
                fleet.pool(route(app)).release(held.slot, reusable=True)
                held.slot.used_at -= idle_s
            written[0] = 130 * MIB
            for _ in range(3):
                fleet.reap()
                assert [one["app"] for one in fleet.status()["instances"]] == ["newer"]
            # It must be back by then: it is memory that somebody has.
            monkeypatch.setattr(fleet_module, "_GIVEN_BACK_S", 0.0)
            fleet.reap()
            assert fleet.status()["instances"] == []

    asyncio.run(main())


def test_when_all_memory_is_busy_the_answer_is_that_the_node_is_busy(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=50) as fleet:
            pool = fleet.pool(route("one"))
            held = await pool.acquire("r")
            with pytest.raises(NodeBusy):
                await serve(fleet, route("two"))
            pool.release(held.slot, reusable=True)
            await serve(fleet, route("two"))

    asyncio.run(main())


def test_a_request_waits_for_the_memory_of_another_apps_busy_instance(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=50) as fleet:
            pool = fleet.pool(route("one"))
            held = await pool.acquire("r")
            waiting = asyncio.create_task(serve(fleet, route("two")))
            while not fleet.pool(route("two")).queued:
                await asyncio.sleep(0)
            pool.release(held.slot, reusable=True)
            await waiting

    asyncio.run(main())


def test_beyond_the_open_files_the_least_recently_used_instance_ends(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, max_instances=2) as fleet:
            await serve(fleet, route("older"))
            await serve(fleet, route("newer"))
            for pool in fleet._all():
                pool.idle[0].used_at -= 10 if pool.route.name == "older" else 5
            await serve(fleet, route("third"))
            assert {one["app"] for one in fleet.status()["instances"]} == {"newer", "third"}

    asyncio.run(main())


def test_when_all_open_files_are_busy_the_answer_is_that_the_node_is_busy(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, max_instances=1) as fleet:
            pool = fleet.pool(route("one"))
            held = await pool.acquire("r")
            with pytest.raises(NodeBusy):
                await serve(fleet, route("two"))
            pool.release(held.slot, reusable=True)
            await serve(fleet, route("two"))

    asyncio.run(main())


def test_a_new_version_replaces_the_pool_and_the_old_one_ends_its_requests(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
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


def test_a_new_snapshot_of_the_same_version_is_for_the_next_instance(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
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


def test_a_deleted_app_is_forgotten(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            await serve(fleet, route())
            fleet.forget({"shop": route(), "other": None})
            assert fleet.names == ["shop"]
            fleet.forget({"shop": None})
            assert fleet.names == []
            assert stage.alive == 0

    asyncio.run(main())


def test_the_log_of_a_sleeping_app_is_closed(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            await serve(fleet, route())
            fleet.log(route()).write("isopod", "hello", version=1)
            fleet.reap()
            log = fleet._logs["shop"]
            assert log._file._fd >= 0
            fleet.sleep("shop")
            fleet.reap()
            assert log._file._fd < 0
            assert fleet._logs == {}

    asyncio.run(main())


async def refused(fleet: Fleet, route) -> IsopodError:
    with pytest.raises(IsopodError) as caught:
        await serve(fleet, route)
    return caught.value


def apps(fleet: Fleet) -> list[str]:
    return sorted(one["app"] for one in fleet.status()["instances"])


def test_a_request_whose_guest_outgrew_the_node_is_ended(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=100) as fleet:
            pool = fleet.pool(route())
            held = [await pool.acquire("r") for _ in range(2)]
            for one, size in zip(held, (60, 70), strict=True):
                one.slot.guest.memory_bytes = size * MIB
            fleet.reap()
            assert [one.slot.guest.closed for one in held] == [False, True]
            assert isinstance(held[1].slot.stopped_by, NodeBusy)
            fleet.reap()  # what was ended counts for nothing
            assert not held[0].slot.guest.closed
            for one in held:
                pool.release(one.slot, reusable=True)

    asyncio.run(main())


def test_a_tenant_above_its_part_gives_way_to_one_within(stage, route, quotas):
    async def main() -> None:
        async with fleet_of(stage, quotas, budget_mib=120) as fleet:
            await serve(fleet, route("small", tenant="modest"))
            pools = [fleet.pool(route(f"bomb{number}", tenant="hostile")) for number in range(2)]
            held = [await pool.acquire("r") for pool in pools]
            for one in held:
                one.slot.guest.memory_bytes = 65 * MIB
            fleet.reap()
            assert not any(one.slot.guest.closed for one in held)
            await serve(fleet, route("other", tenant="modest"))
            assert "other" in apps(fleet)
            assert sum(one.slot.guest.closed for one in held) == 1
            error = await refused(fleet, route("third", tenant="hostile"))
            assert isinstance(error, NodeBusy)
            assert "other" in apps(fleet)
            for pool, one in zip(pools, held, strict=True):
                pool.release(one.slot, reusable=True)

    asyncio.run(main())


def test_instances_beyond_a_quota_are_refused_unless_idle_ones_can_end(stage, route, quotas):
    quotas.follow({"acme": Tenant(TenantName("acme"), quota=Quota(max_instances=1))})

    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            await serve(fleet, route("one", tenant="acme"))
            await serve(fleet, route("free", tenant="other"))
            await serve(fleet, route("two", tenant="acme"))
            assert apps(fleet) == ["free", "two"]
            pool = fleet.pool(route("two", tenant="acme"))
            held = await pool.acquire("r")
            error = await refused(fleet, route("one", tenant="acme"))
            assert (error.code, error.status) == ("quota_exceeded", 403)
            assert error.details == {"quota": "max_instances", "limit": 1, "used": 1}
            pool.release(held.slot, reusable=True)
            await serve(fleet, route("one", tenant="acme"))

    asyncio.run(main())


def test_who_waits_for_an_instance_of_its_app_is_served_within_the_quota(stage, route, quotas):
    quotas.follow({"acme": Tenant(TenantName("acme"), quota=Quota(max_instances=1))})

    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            pool = fleet.pool(route(tenant="acme"))
            held = await pool.acquire("r")
            waiting = asyncio.create_task(serve(fleet, route(tenant="acme")))
            async with asyncio.timeout(60):
                while not pool.queued:
                    await asyncio.sleep(0)
            pool.release(held.slot, reusable=True)
            assert await waiting == held.slot.id

    asyncio.run(main())


def test_memory_beyond_a_quota_is_refused_and_idle_instances_that_grew_end(stage, route, quotas):
    quotas.follow({"acme": Tenant(TenantName("acme"), quota=Quota(memory_mib=100))})

    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            pool = fleet.pool(route("one", tenant="acme"))
            held = await pool.acquire("r")
            held.slot.guest.memory_bytes = 90 * MIB
            error = await refused(fleet, route("two", tenant="acme"))
            assert error.details == {"quota": "memory_mib", "limit": 100, "used": 90}
            held.slot.guest.memory_bytes = 110 * MIB
            pool.release(held.slot, reusable=True)
            fleet.reap()
            assert stage.alive == 0
            await serve(fleet, route("two", tenant="acme"))

    asyncio.run(main())


def test_an_idle_instance_ends_when_another_worker_needs_its_place(stage, route, tmp_path):
    """Two workers, in one process."""
    acme = {"acme": Tenant(TenantName("acme"), quota=Quota(max_instances=1))}

    async def main() -> None:
        with ExitStack() as held:
            both = [
                Quotas(folder=tmp_path / "q", worker=number, workers=2, clock=lambda: 0.0)
                for number in range(2)
            ]
            for one in both:
                one.follow(acme)
                held.callback(one.close)
            async with (
                fleet_of(stage, both[0], counts=False) as first,
                fleet_of(stage, both[1], counts=False) as second,
            ):
                await serve(first, route("one", tenant="acme"))
                assert apps(first) == ["one"]
                # Waits until the reaper of the first has looked.
                await serve(second, route("two", tenant="acme"))
                assert (apps(first), apps(second)) == ([], ["two"])

    asyncio.run(main())


def test_what_guests_use_counts_towards_the_day_while_they_run(stage, route, quotas):
    quotas.follow({"acme": Tenant(TenantName("acme"), quota=Quota(cpu_s_per_day=2))})

    async def main() -> None:
        async with fleet_of(stage, quotas) as fleet:
            pool = fleet.pool(route(tenant="acme"))
            held = await pool.acquire("r")
            for _ in range(4):
                quotas.admit("acme")
                held.slot.guest.cpu_ns += 500_000_000
                fleet.reap()
            with pytest.raises(QuotaExceeded):
                quotas.admit("acme")
            pool.release(held.slot, reusable=True)

    asyncio.run(main())


def test_a_command_waits_for_the_end_of_the_request_that_has_the_volumes(stage, route, quotas):
    app = replace(route(), volumes=(MountedVolume("data", "/data", 1),))
    VolumeFolder.of(stage.logs, app.tenant, "data").make()

    async def body():
        async with asyncio.timeout(60), fleet_of(stage, quotas) as fleet:
            admission = Admission(quotas=quotas, lag_s=lambda: 0.0, tell=lambda route, line: None)
            commands = Commands(fleet=fleet, admission=admission)
            slot = (await fleet.pool(app).acquire("r1")).slot
            assert not slot.wanted
            running = asyncio.ensure_future(
                commands.run(app, stage.make, timeout_s=5, gone=asyncio.Event())
            )
            while not slot.wanted:
                await asyncio.sleep(0)
            assert len(stage.guests) == 1
            fleet.pool(app).release(slot, reusable=True)
            assert (await running).code == "ok"
            assert [guest.closed for guest in stage.guests] == [True, True]

    asyncio.run(body())
