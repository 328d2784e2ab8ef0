"""What no version needs goes, after it was found unused for long enough; what one needs stays,
whatever happens meanwhile."""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from isopod.control import sweeping
from isopod.control.sweeping import sweep, sweep_regularly
from isopod.control.unused import Unused
from isopod.errors import DataDirUnusable, StateCorrupt
from isopod.model.app import Build
from isopod.model.ids import Digest
from isopod.model.tenant import DEFAULT_TENANT

H = 3600.0
WEEK = 168 * H


def later(node, by: float) -> None:
    """The node's clock goes on."""
    now = node.clock() + by
    object.__setattr__(node, "clock", lambda: now)


async def swept_for_good(node) -> sweeping.Swept:
    """A look, another one when what it found has been unused for long enough, and what that did."""
    later(node, 2 * H)
    await sweep(node)
    later(node, WEEK)
    return await sweep(node)


def test_what_every_version_needs_stays(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            await api.deployed(b"two")
            before = set(api.node.blobs.digests())
            assert (await swept_for_good(api.node)).blobs == 0
            assert set(api.node.blobs.digests()) == before
            assert (await api.http.post("/v1/apps/hello/rollback", json={})).status_code == 200

    run(main())


def test_the_blobs_of_a_deleted_app_go_a_week_after_they_were_found_unused(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"kept", name="kept")
            kept = set(api.node.blobs.digests())
            await api.deployed(b"gone", name="gone")
            gone = set(api.node.blobs.digests()) - kept
            later(api.node, 2 * WEEK)  # they are old; but how long they are unused is what counts
            assert (await api.http.delete("/v1/apps/gone")).status_code == 200
            assert (await sweep(api.node)).blobs == 0
            later(api.node, WEEK - 60)
            assert (await sweep(api.node)).blobs == 0
            later(api.node, 60)
            swept = await sweep(api.node)
            assert swept.blobs == len(gone) and swept.bytes > 0
            assert set(api.node.blobs.digests()) == kept
            # And it can come back.
            assert (await api.deployed(b"gone", name="gone"))["version"] == 1

    run(main())


def test_what_was_needed_for_a_while_waits_anew(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"kept", name="kept")
            digest = Digest(await api.put(b"now and then"))
            later(api.node, 2 * H)
            await sweep(api.node)
            await api.deployed(b"now and then", name="other")
            later(api.node, WEEK)
            await sweep(api.node)
            await api.http.delete("/v1/apps/other")
            later(api.node, 2 * H)
            assert (await sweep(api.node)).blobs == 0 and api.node.blobs.has(digest)

    run(main())


def test_how_long_is_a_setting_but_nothing_goes_at_first_sight(opened, run):
    async def main():
        async with opened(keep_unused_h=0) as api:
            await api.deployed(b"kept", name="kept")
            digest = await api.put(b"uploaded, and forgotten")
            assert [(await sweep(api.node)).blobs for _ in range(2)] == [0, 0]  # young
            later(api.node, 2 * H)
            assert [(await sweep(api.node)).blobs for _ in range(2)] == [0, 1]
            assert (await api.http.head(f"/v1/packages/{digest}")).status_code == 404

    run(main())


def test_since_when_is_known_after_a_restart_but_not_in_another_state(tmp_path):
    path, one = tmp_path / "unused.json", Digest("a" * 64)
    assert Unused(path, state="s").look([one], now=1.0) == {}
    assert Unused(path, state="s").look([one], now=5.0) == {one: 1.0}
    assert Unused(path, state="s").look([one], now=0.5) == {one: 0.5}  # the clock was set back
    assert Unused(path, state="another").look([one], now=6.0) == {}
    assert Unused(path, state="another").look([one], now=7.0) == {one: 6.0}
    for damaged in (b"", b"[]", b'{"state": "another", "since": {"a": []}}'):
        path.write_bytes(damaged)
        assert Unused(path, state="another").look([one], now=9.0) == {}


def test_of_each_app_the_newest_versions_stay_and_the_live_one(opened, run):
    async def main():
        async with opened(keep_versions=2) as api:
            for number in range(1, 6):
                await api.deployed(b"%d" % number)
            await api.http.post("/v1/apps/hello/rollback", json={"version": 2})
            assert (await sweep(api.node)).versions == 2
            there = await api.get("/v1/apps/hello")
            assert [(v["number"], v["live"]) for v in there["versions"]] == [
                (5, False), (4, False), (2, True),
            ]  # fmt: skip
            await swept_for_good(api.node)
            assert not api.node.blobs.has(_sha256(b"1")) and api.node.blobs.has(_sha256(b"2"))
            assert (await api.deployed(b"6"))["version"] == 6  # numbers are not given again

    run(main())


def test_a_node_whose_state_is_missing_or_empty_does_not_start_and_keeps_its_blobs(
    opened, run, data_dir
):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            blobs = set(api.node.blobs.digests())
        saved = data_dir.with_name("saved")
        saved.mkdir()
        for path in data_dir.glob("state.db*"):
            shutil.move(path, saved)
        for _ in range(2):
            with pytest.raises(DataDirUnusable, match=r"state\.db' is missing or empty"):
                async with opened():
                    pass
            (data_dir / "state.db").touch()  # half a copy
        async with opened(new_state=True) as api:  # who insists still loses nothing
            assert (await swept_for_good(api.node)).refused
            await api.deployed(b"another", name="another")
            assert (await swept_for_good(api.node)).blobs == 0
            assert blobs <= set(api.node.blobs.digests())
        for path in data_dir.glob("state.db*"):
            path.unlink()
        for path in saved.iterdir():
            shutil.move(path, data_dir)
        async with opened() as api:  # the restore that came late
            assert (await api.http.post("/v1/apps/hello/rollback", json={})).status_code == 404
            assert api.node.blobs.has(_sha256(b"one")) and api.routes.get("hello")

    run(main())


def test_blobs_that_were_copied_after_state_have_all_that_it_names(opened, run, data_dir):
    async def main():
        async with opened(keep_versions=1) as api:
            await api.deployed(b"other", name="other")
            await api.deployed(b"one")
            later(api.node, 2 * WEEK)
            copy = data_dir / "copy.db"
            with (
                closing(sqlite3.connect(data_dir / "state.db")) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            await api.deployed(b"two")
            await api.http.delete("/v1/apps/hello")
            for _ in range(3):
                later(api.node, 2 * H)
                await sweep(api.node)
            with closing(sqlite3.connect(copy)) as db:
                named = db.execute("SELECT package, app_tree, site_tree FROM versions").fetchall()
            assert all(api.node.blobs.has(Digest(one)) for row in named for one in row)

    run(main())


def test_a_damaged_version_stops_the_round_before_anything_goes(opened, run, data_dir):
    async def main():
        async with opened(keep_unused_h=0, keep_versions=1) as api:
            await api.deployed(b"one")
            await api.deployed(b"two")
            before = set(api.node.blobs.digests())
            for change in (
                "UPDATE versions SET package = replace(package, substr(package, 1, 1), '0')",
                "UPDATE versions SET snapshot = '{'",
            ):
                with closing(sqlite3.connect(data_dir / "state.db")) as db, db:
                    db.execute(f"{change} WHERE number = 1")
                for _ in range(3):
                    later(api.node, 2 * H)
                    with pytest.raises(StateCorrupt):
                        await sweep(api.node)
            assert set(api.node.blobs.digests()) == before

    run(main())


def test_whatever_happens_in_one_round_there_is_another(opened, run, monkeypatch, caplog):
    async def main():
        async with opened() as api:
            rounds, enough = [], asyncio.Event()

            async def broken(node):
                rounds.append(node)
                if len(rounds) == 3:
                    enough.set()
                raise ValueError("of nobody's making")

            monkeypatch.setattr(sweeping, "sweep", broken)
            monkeypatch.setattr(sweeping, "_EVERY_S", 0.0)
            task = asyncio.create_task(sweep_regularly(api.node))
            async with asyncio.timeout(60):
                await enough.wait()
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
            assert "of nobody's making" in caplog.text

    run(main())


def test_nobody_keeps_the_sweep_from_removing(opened, run, monkeypatch):
    """Not who always deploys, and not who has a line written to the audit log."""

    async def main():
        async with opened(keep_unused_h=0) as api:
            await api.deployed(b"kept", name="kept")
            reader = await api.tenant("mallory", "read")
            for number in range(3):
                await api.put(b"%d" % number)
            later(api.node, 2 * H)
            await sweep(api.node)
            look = sweeping._ripe

            def and_then_an_entry(*args, **named):
                found = look(*args, **named)
                refused = reader.http.delete("/v1/apps/nothing")
                asyncio.run_coroutine_threadsafe(refused, loop).result(10)
                return found

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(sweeping, "_ripe", and_then_an_entry)
            with api.node.one_deploy("someone's", ""):
                assert (await sweep(api.node)).blobs == 3

    run(main())


def test_a_package_that_a_deploy_relies_on_stays_until_it_has_ended(opened, run, tmp_path):
    async def main():
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        async with opened(keep_unused_h=0) as api:
            await api.deployed(b"kept", name="kept")
            digest = Digest(await api.put(b"slow"))
            later(api.node, 2 * H)
            await sweep(api.node)
            api.node.state.of(DEFAULT_TENANT).packages.add(digest, now=api.node.clock())
            body = {"package": digest, "name": "slow", "folder_name": "x", "source": ""}
            env = {"MODE": "gate", "GATE": str(gate)}
            asked = api.http.post("/v1/deploys", json={**body, "env": env})
            deploying = asyncio.create_task(asked)
            with await asyncio.to_thread(gate.open, "wb"):  # the builder is at work now
                swept = await sweep(api.node)
            assert '"result"' in (await deploying).text
            assert swept.blobs == 0
            assert api.node.blobs.has(digest)

    run(main())


def test_the_trees_of_an_earlier_build_that_a_deploy_uses_are_young_again(opened, run):
    async def main():
        async with opened() as api:
            package, tree = Digest(await api.put(b"package")), Digest(await api.put(b"tree"))
            later(api.node, 2 * WEEK)
            now = api.node.clock()
            mine, runtimes = api.node.state.of(DEFAULT_TENANT), api.node.catalog.digest()
            mine.builds.save(
                Build(Digest("e" * 64), tree, tree, ()), package=package, runtimes=runtimes, now=now
            )
            await api.deployed(b"package")
            assert api.node.blobs.path(tree).stat().st_mtime == pytest.approx(now, abs=1)

    run(main())


def test_a_version_is_not_written_when_its_blobs_went_meanwhile(opened, run, tmp_path):
    async def main():
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        async with opened() as api:
            env = {"MODE": "gate", "GATE": str(gate)}
            deploying = asyncio.create_task(api.deploy(b"gone", name="slow", env=env))
            with await asyncio.to_thread(gate.open, "wb"):
                api.node.blobs.delete(_sha256(b"gone"))
            assert (await deploying)[-1]["error"]["code"] == "blob_missing"
            assert (await api.http.get("/v1/apps/slow")).status_code == 404

    run(main())


def test_what_a_version_began_to_need_after_the_look_stays(opened, run, monkeypatch):
    async def main():
        async with opened(keep_unused_h=0) as api:
            await api.deployed(b"kept", name="kept")
            digest = Digest(await api.put(b"late"))
            await api.put(b"unused")
            later(api.node, 2 * H)
            await sweep(api.node)
            look, clock = sweeping._ripe, api.node.clock

            def and_then_a_deploy(*args, **named):
                found = look(*args, **named)
                # Not even touched, as if the clock were wrong.
                deploy = api.deployed(b"late", name="late")
                asyncio.run_coroutine_threadsafe(deploy, loop).result(30)
                os.utime(api.node.blobs.path(digest), (clock() - 3 * H,) * 2)
                return found

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(sweeping, "_ripe", and_then_a_deploy)
            assert (await sweep(api.node)).blobs == 1
            assert api.node.blobs.has(digest)

    run(main())


def test_the_folders_made_of_a_blob_go_with_it(opened, run):
    async def main():
        async with opened(keep_unused_h=0) as api:
            await api.deployed(b"kept", name="kept")
            digest = await api.put(b"was a tree")
            settings = api.node.settings
            for folder in (settings.trees_dir, settings.images_dir):
                (folder / digest / "in it").mkdir(parents=True)
            later(api.node, 2 * H)
            assert [(await sweep(api.node)).blobs for _ in range(2)] == [0, 1]
            assert not list(settings.trees_dir.iterdir())
            assert not (settings.images_dir / digest).exists()

    run(main())


def test_a_version_that_is_forgotten_while_it_is_rolled_back_to_does_not_go_live(
    opened, run, monkeypatch
):
    from isopod.control import rollback

    async def main():
        async with opened(keep_versions=2) as api:
            for number in range(1, 6):
                await api.deployed(b"%d" % number)
            chosen, go = threading.Event(), threading.Event()
            choose = rollback._choose

            def slowly(*args):
                found = choose(*args)
                chosen.set()
                go.wait(60)
                return found

            monkeypatch.setattr(rollback, "_choose", slowly)
            body = {"version": 1}
            asked = asyncio.create_task(api.http.post("/v1/apps/hello/rollback", json=body))
            await asyncio.to_thread(chosen.wait, 10)
            again = await api.http.post("/v1/apps/hello/rollback", json={"version": 4})
            assert (again.status_code, again.json()["error"]["code"]) == (409, "deploy_in_progress")
            assert (await sweep(api.node)).versions == 3
            go.set()
            answer = await asked
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                404,
                "version_not_found",
            )
            assert (await api.get("/v1/apps/hello"))["app"]["version"] == 5
            assert api.routes.get("hello").version == 5

    run(main())


def _sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())
