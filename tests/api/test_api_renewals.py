"""Snapshots that are made anew in the background: when they belong to another runtime, were never
taken, or a disk damaged them."""

import asyncio
import contextlib
import json
import os
from dataclasses import replace

import pytest
from tests.api.test_sweeping import WEEK, later

from isopod.control.renewing import Renewing
from isopod.control.runtimes import Catalog
from isopod.control.sweeping import sweep
from isopod.errors import DiskFull
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot, plain
from isopod.model.tenant import DEFAULT_TENANT

NOW, BEFORE = Digest("a" * 64), Digest("b" * 64)


def taken(image: str, runtime: Digest, *, private: bool = False) -> Snapshot:
    return replace(
        plain(""), verdict="sound", image=Digest(image), runtime=runtime, private=private
    )


class Renewals:
    """A node whose runtime was upgraded, and what its builder hands over."""

    def __init__(self, opened, tmp_path) -> None:
        self._opened = opened
        self.builds, self.again = tmp_path / "builds", tmp_path / "again"

    @contextlib.asynccontextmanager
    async def open(self, runtime: Digest = NOW):
        async with self._opened() as api:
            found = Catalog(api.node.settings.data_dir, api.node.catalog._find, lambda _: runtime)
            object.__setattr__(api.node, "catalog", found)
            api.new = await api.put(b"new image")
            self.hand_over(taken(api.new, NOW))
            yield api

    def hand_over(self, snapshot: Snapshot) -> None:
        self.again.write_text(json.dumps(snapshot.to_json()))

    def env(self, snapshot: Snapshot | None, **more: str) -> dict[str, str]:
        said = {} if snapshot is None else {"SNAPSHOT": json.dumps(snapshot.to_json())}
        return {"BUILDS": str(self.builds), "AGAIN": str(self.again), **said, **more}

    def renewed(self) -> list[str]:
        """The apps that a builder renewed, in order."""
        jobs = [json.loads(line) for line in self.builds.read_text().splitlines()]
        return [job["app_name"] for job in jobs if job["only_snapshot"]]


@pytest.fixture
def renewals(opened, tmp_path):
    return Renewals(opened, tmp_path)


def snapshot_of(api, name: str) -> Snapshot | None:
    """In state and in the routes alike."""
    mine = api.node.state.of(DEFAULT_TENANT)
    app = mine.apps.get(AppName(name))
    stored = mine.versions.get(AppName(name), app.live_version).snapshot
    assert api.routes.get(name).snapshot == stored
    return stored


def test_what_is_missing_or_of_another_runtime_is_taken_anew_once_per_kind(renewals, run):
    async def main():
        async with renewals.open() as api:
            old = taken(await api.put(b"old image"), BEFORE)
            for name in ("a", "b", "c"):
                await api.deployed(name=name, env=renewals.env(old))
            await api.deployed(name="other", env=renewals.env(old, VALUE="1"))
            await api.deployed(b"second", name="bare", env=renewals.env(None))
            await api.deployed(b"third", name="fine", env=renewals.env(taken(api.new, NOW)))
            await api.deployed(b"fourth", name="plain", env=renewals.env(plain("it must")))
            before = await api.get("/v1/status")
            assert before["snapshots"] == {"total": 0, "rebuilt": 0, "failed": 0}
            await Renewing(api.node).round()
            assert renewals.renewed() == ["a", "bare", "other"]
            for name in ("a", "b", "c", "other", "bare", "fine"):
                assert snapshot_of(api, name) == taken(api.new, NOW)
            assert snapshot_of(api, "plain") == plain("it must")
            after = await api.get("/v1/status")
            assert after["snapshots"] == {"total": 5, "rebuilt": 5, "failed": 0}
            await Renewing(api.node).round()
            assert len(renewals.renewed()) == 3
        async with renewals.open() as api:  # it is in state, checksums and all
            assert snapshot_of(api, "a") == taken(api.new, NOW)

    run(main())


def test_an_image_without_values_is_shared_by_apps_with_other_values(renewals, run):
    async def main():
        async with renewals.open() as api:
            for number in range(4):
                env = renewals.env(None, VALUE=str(number))
                await api.deployed(name=f"app-{number}", env=env)
            await Renewing(api.node).round()
            assert renewals.renewed() == ["app-0"]
            assert snapshot_of(api, "app-3") == taken(api.new, NOW)

    run(main())


def test_a_tenant_that_always_deploys_keeps_no_other_from_its_snapshots(renewals, run, monkeypatch):
    monkeypatch.setattr("isopod.control.renewing._WAIT_AT_MOST_S", 0.1)

    async def main():
        async with renewals.open() as api:
            await api.deployed(name="a", env=renewals.env(None))
            with api.node.one_deploy("acme shop", "it never ends"):
                await Renewing(api.node).round()
            assert snapshot_of(api, "a") == taken(api.new, NOW)

    run(main())


def test_no_image_is_shared_between_tenants(renewals, run):
    async def main():
        async with renewals.open() as api:
            acme, globex = await api.tenant("acme"), await api.tenant("globex")
            for caller in (acme, globex):
                await caller.deployed(name="shop", env=renewals.env(None))
            await Renewing(api.node).round()
            assert renewals.renewed() == ["shop", "shop--globex"]

    run(main())


def test_a_private_image_is_taken_once_per_value(renewals, run):
    async def main():
        async with renewals.open() as api:
            renewals.hand_over(taken(api.new, NOW, private=True))
            for name, value in (("a", "1"), ("b", "2"), ("c", "1")):
                await api.deployed(name=name, env=renewals.env(None, VALUE=value))
            await Renewing(api.node).round()
            assert renewals.renewed() == ["a", "b"]
            assert snapshot_of(api, "c").private

    run(main())


def test_the_next_start_goes_on_where_a_kill_came_between(renewals, run):
    async def main():
        async with renewals.open() as api:
            for name in ("a", "b"):
                await api.deployed(name=name, env=renewals.env(None))
            await api.deployed(b"second", name="c", env=renewals.env(None))
            version = api.node.state.of(DEFAULT_TENANT).versions.get(AppName("a"), 1)
            await Renewing(api.node)._give([version], taken(api.new, NOW), DEFAULT_TENANT)
        async with renewals.open() as api:
            await Renewing(api.node).round()
            assert renewals.renewed() == ["c"]  # b shares a's
            assert snapshot_of(api, "b") == taken(api.new, NOW)

    run(main())


def test_a_failure_is_said_in_the_apps_log_and_stops_no_other(renewals, run):
    async def main():
        async with renewals.open() as api:
            gone = renewals.env(None, MODE="")
            await api.deployed(name="bad", env=gone | {"AGAIN": "/nowhere"})
            await api.deployed(b"second", name="good", env=renewals.env(None))
            renewing = Renewing(api.node)
            await renewing.round()
            assert snapshot_of(api, "bad") is None
            assert snapshot_of(api, "good") == taken(api.new, NOW)
            response = await api.http.get("/v1/apps/bad/logs")
            line = json.loads(response.text.splitlines()[-1])
            assert line["stream"] == "isopod"
            assert "build_failed: no new snapshot: the builder ended" in line["message"]
            status = await api.get("/v1/status")
            assert status["snapshots"] == {"total": 2, "rebuilt": 1, "failed": 1}
            await renewing.round()  # not again and again
            assert renewals.renewed() == ["bad", "good"]

    run(main())


def test_a_deploy_in_the_meantime_wins(renewals, run, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def main():
        async with renewals.open() as api:
            env = renewals.env(None, MODE="gate", GATE=str(gate))
            package = asyncio.create_task(api.deployed(name="a", env=env))
            await asyncio.to_thread(gate.write_bytes, b"")
            await package
            going = asyncio.create_task(Renewing(api.node).round())
            while not renewals.renewed():
                await asyncio.sleep(0.01)
            mine = taken(await api.put(b"mine"), NOW)
            await api.deployed(b"second", name="a", env=renewals.env(mine))
            await asyncio.to_thread(gate.write_bytes, b"")
            await going
            assert snapshot_of(api, "a") == mine
            assert api.node.state.of(DEFAULT_TENANT).versions.get(AppName("a"), 1).snapshot is None

    run(main())


def test_no_builder_starts_while_somebody_deploys(renewals, run):
    async def main():
        async with renewals.open() as api:
            await api.deployed(name="a", env=renewals.env(None))
            with api.node.one_deploy("b", "wait"):
                going = asyncio.create_task(Renewing(api.node).round())
                while not api.node.renewals.total:
                    await asyncio.sleep(0.01)
                await asyncio.wait([going], timeout=0.1)
                assert renewals.renewed() == []
            await going
            assert renewals.renewed() == ["a"]

    run(main())


def test_a_damaged_or_missing_image_is_made_again_when_somebody_noticed(renewals, run):
    async def main():
        async with renewals.open() as api:
            image = Digest(await api.put(b"an image"))
            env = renewals.env(taken(image, NOW))
            for name in ("a", "b"):
                await api.deployed(name=name, env=env)
            await Renewing(api.node).round()
            assert renewals.renewed() == []
            api.node.blobs.path(image).write_bytes(b"damaged!")
            await Renewing(api.node).round()  # nobody has noticed: not hashed
            assert renewals.renewed() == []
            await Renewing(api.node).round([image, Digest("9" * 64)])
            assert renewals.renewed() == ["a"]
            assert snapshot_of(api, "b") == taken(api.new, NOW)
            api.node.blobs.delete(Digest(api.new))
            renewals.hand_over(taken(image, NOW))
            await Renewing(api.node).round()  # missing: seen at once
            assert renewals.renewed() == ["a", "a"]

    run(main())


def test_a_deploy_that_finds_a_damaged_image_has_the_others_looked_at(renewals, run):
    async def main():
        async with renewals.open() as api:
            image = Digest(await api.put(b"an image"))
            await api.deployed(name="a", env=renewals.env(taken(image, NOW)))
            api.node.blobs.path(image).write_bytes(b"damaged!")
            await api.deployed(name="a", env=renewals.env(taken(image, NOW)))
            assert image in api.node.renewals.images
            assert api.node.renewals.asked.is_set()

    run(main())


def test_the_task_renews_what_is_rolled_back_to(renewals, run):
    async def main():
        async with renewals.open() as api:
            await api.deployed(name="a", env=renewals.env(taken(api.new, BEFORE)))
            await api.deployed(b"second", name="a", env=renewals.env(taken(api.new, NOW)))
            task = asyncio.create_task(Renewing(api.node).run())
            while not api.node.renewals.current:
                await asyncio.sleep(0.01)
            await api.http.post("/v1/apps/a/rollback", json={"version": 1})
            versions = api.node.state.of(DEFAULT_TENANT).versions
            while versions.get(AppName("a"), 1).snapshot.runtime != NOW:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert renewals.renewed() == ["a"]

    run(main())


def test_routes_that_cannot_be_written_are_a_failure_of_that_app_alone(renewals, run, monkeypatch):
    async def main():
        async with renewals.open() as api:
            await api.deployed(name="a", env=renewals.env(None))
            put = api.node.routes.put

            def full(*routes):
                monkeypatch.setattr(api.node.routes, "put", put)
                raise DiskFull("no space")

            monkeypatch.setattr(api.node.routes, "put", full)
            await Renewing(api.node).round()
            assert api.node.renewals.failed == 1
        async with renewals.open() as api:  # state has it: the routes follow at the next start
            assert snapshot_of(api, "a") == taken(api.new, NOW)

    run(main())


def test_going_back_to_an_engine_finds_its_images_still_there(renewals, run):
    async def main():
        async with renewals.open() as api:
            old = await api.put(b"old image")
            await api.deployed(name="a", env=renewals.env(taken(old, BEFORE)))
            api.node.renewals.current["python"] = NOW
            assert (await api.get("/v1/apps/a"))["snapshot"]["outdated"] is True
            await Renewing(api.node).round()  # the upgrade
            assert snapshot_of(api, "a") == taken(api.new, NOW)
            assert (await api.get("/v1/apps/a"))["snapshot"]["outdated"] is False
            assert renewals.renewed() == ["a"]
        async with renewals.open(runtime=BEFORE) as api:
            await Renewing(api.node).round()  # and back
            assert snapshot_of(api, "a") == taken(old, BEFORE)
            status = await api.get("/v1/status")
            assert status["snapshots"] == {"total": 1, "rebuilt": 1, "failed": 0}
        async with renewals.open() as api:
            await Renewing(api.node).round()  # and forth
            assert snapshot_of(api, "a") == taken(api.new, NOW)
        assert renewals.renewed() == ["a"]  # nothing was built again

    run(main())


def test_an_app_that_another_engine_could_not_take_starts_from_its_image_again(renewals, run):
    async def main():
        async with renewals.open() as api:
            old = await api.put(b"old image")
            await api.deployed(name="a", env=renewals.env(taken(old, BEFORE)))
            renewals.hand_over(plain("the image did not answer its health request"))
            await Renewing(api.node).round()
            shown = await api.get("/v1/apps/a")
            assert shown["snapshot"]["verdict"] == "plain"
            assert "did not answer" in shown["snapshot"]["why"]
        async with renewals.open(runtime=BEFORE) as api:
            await Renewing(api.node).round()
            assert snapshot_of(api, "a") == taken(old, BEFORE)

    run(main())


def test_a_former_image_that_is_damaged_is_not_taken_back(renewals, run):
    async def main():
        async with renewals.open() as api:
            old = await api.put(b"old image")
            await api.deployed(name="a", env=renewals.env(taken(old, BEFORE)))
            await Renewing(api.node).round()
        async with renewals.open(runtime=BEFORE) as api:
            api.node.blobs.path(old).chmod(0o600)
            api.node.blobs.path(old).write_bytes(b"other")
            renewals.hand_over(taken(api.new, BEFORE))
            await Renewing(api.node).round()
            assert snapshot_of(api, "a") == taken(api.new, BEFORE)
            assert renewals.renewed() == ["a", "a"]

    run(main())


def test_former_images_are_not_swept_while_their_version_is_live(renewals, run):
    async def main():
        async with renewals.open() as api:
            old = await api.put(b"old image")
            await api.deployed(name="a", env=renewals.env(taken(old, BEFORE)))
            await Renewing(api.node).round()
            await api.deployed(b"other", name="b", env=renewals.env(plain("it must")))

            async def swept():
                later(api.node, WEEK)
                await sweep(api.node)
                later(api.node, WEEK)
                await sweep(api.node)

            await swept()
            assert api.node.blobs.has(Digest(old)) and api.node.blobs.has(Digest(api.new))
            await api.http.delete("/v1/apps/a")
            await swept()
            assert not api.node.blobs.has(Digest(old))

    run(main())
