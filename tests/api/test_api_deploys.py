import asyncio
import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from isopod.control.runtimes import RuntimeStatus


def built(path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_deploy_tells_its_steps_and_is_live_when_it_is_acknowledged(opened, run):
    async def main():
        async with opened() as api:
            *steps, last = await api.deploy()
            assert [s["step"]["name"] for s in steps] == ["unpack", "unpack", "publish", "publish"]
            result = last["result"]
            assert result["url"] == "http://hello.localhost:8080/"
            assert (result["app"], result["version"], result["unchanged"]) == ("hello", 1, False)
            assert api.routes.get("hello").digest == result["digest"]
            assert (await api.get("/v1/apps"))["apps"][0]["name"] == "hello"

    run(main())


def test_the_same_input_is_the_same_version_and_no_new_build(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            first = await api.deployed(env={"BUILDS": str(builds)})
            second = await api.deployed(env={"BUILDS": str(builds)})
            assert second["digest"] == first["digest"]
            assert (second["version"], second["unchanged"]) == (1, True)
            assert built(builds) == 1
        async with opened() as api:  # also after a restart
            assert (await api.deployed(env={"BUILDS": str(builds)}))["unchanged"]
            assert built(builds) == 1

    run(main())


def test_another_runtime_is_another_build(opened, run, tmp_path):
    builds = tmp_path / "builds"
    newer = RuntimeStatus("python", "3.15.1", "8" * 64, 1000, True, "PSF-2.0")

    async def main():
        async with opened() as api:
            await api.deployed(env={"BUILDS": str(builds)})
        async with opened(runtime=newer) as api:
            again = await api.deployed(env={"BUILDS": str(builds)})
            assert built(builds) == 2
            assert again["unchanged"]  # its result was the same

    run(main())


def test_other_env_is_a_new_version_that_reuses_the_build(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            env = {"BUILDS": str(builds)}
            first = await api.deployed(env=env)
            second = await api.deployed(env=env | {"MORE": "1"})
            assert (first["version"], second["version"]) == (1, 2)
            jobs = builds.read_text().splitlines()
            assert '"reuse": null' in jobs[0]
            assert '"app_tree"' in jobs[1]

    run(main())


def test_deploying_an_earlier_input_again_makes_that_version_live(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            await api.deployed(b"two")
            again = await api.deployed(b"one")
            assert (again["version"], again["built"], again["unchanged"]) == (1, False, False)
            assert api.routes.get("hello").version == 1
            assert (await api.deployed(b"three"))["version"] == 3

    run(main())


def test_an_input_whose_blobs_are_gone_is_built_again(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            first = await api.deployed(env={"BUILDS": str(builds)})
            api.node.blobs.delete(api.routes.get("hello").app_tree)
            second = await api.deployed(env={"BUILDS": str(builds)})  # uploads it again
            assert second["digest"] == first["digest"]

    run(main())


def test_deploying_again_heals_what_the_disk_damaged(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            await api.deployed(env={"BUILDS": str(builds)})
            tree = api.routes.get("hello").app_tree  # the stub's trees are the package itself
            api.node.blobs.path(tree).write_bytes(b"rot")
            assert (await api.http.head(f"/v1/packages/{tree}")).status_code == 404
            again = await api.deployed(env={"BUILDS": str(builds)})
            assert (again["version"], built(builds)) == (1, 1)  # the upload healed the tree, too
            api.node.blobs.path(tree).write_bytes(b"rot")
            body = {"package": tree, "source": "m:/hello", "folder_name": "hello"}
            body["env"] = {"BUILDS": str(builds)}
            await api.http.post("/v1/deploys", json=body)
            assert built(builds) == 2

    run(main())


def refused(lines: list[dict], code: str) -> dict:
    assert lines[-1].get("error", {}).get("code") == code, lines
    return lines[-1]["error"]


def test_whatever_a_builder_does_the_old_version_serves_on(opened, run):
    async def main():
        async with opened() as api:
            live = await api.deployed()
            for mode, code in (
                ("die", "build_failed"),
                ("silent", "build_failed"),
                ("babble", "build_failed"),
                ("fail", "app_syntax_error"),
            ):
                error = refused(await api.deploy(env={"MODE": mode}), code)
                assert error["request_id"]
                assert api.routes.get("hello").digest == live["digest"]
            assert (
                "SIGKILL"
                in refused(await api.deploy(env={"MODE": "die"}), "build_failed")["message"]
            )
            failed = refused(await api.deploy(env={"MODE": "fail"}), "app_syntax_error")
            assert "boom" in failed["details"]["traceback"]
            detail = await api.get("/v1/apps/hello")
            assert [v["number"] for v in detail["versions"]] == [1]
            assert api.node.deploying == set()

    run(main())


def test_a_build_past_its_time_is_ended(opened, run, monkeypatch):
    monkeypatch.setattr("isopod.control.builds._GRACE_S", 0.0)

    async def main():
        async with opened(build_timeout_s=0.5) as api:
            refused(await api.deploy(env={"MODE": "hold"}), "build_timeout")

    run(main())


async def started(path) -> None:
    """Until the builder left its line."""
    while not built(path):
        await asyncio.sleep(0.01)


def test_of_two_deploys_of_one_app_one_wins_and_the_other_is_told(opened, run, tmp_path):
    gate, builds = tmp_path / "gate", tmp_path / "builds"
    os.mkfifo(gate)
    env = {"MODE": "gate", "GATE": str(gate), "BUILDS": str(builds)}

    async def main():
        async with opened() as api:
            for name in ("hello", None):  # by name, and by the folder it comes from
                first = asyncio.create_task(api.deploy(name=name, env=env | {"N": str(name)}))
                await started(builds)
                package = await api.put(b"other")
                body = {"package": package, "name": name, "source": "m:/hello"}
                second = await api.http.post("/v1/deploys", json=body)
                assert second.status_code == 409
                assert second.json()["error"]["code"] == "deploy_in_progress"
                if name:
                    deleted = await api.http.delete("/v1/apps/hello")
                    assert deleted.json()["error"]["code"] == "deploy_in_progress"
                await asyncio.to_thread(gate.write_bytes, b"")
                assert "result" in (await first)[-1]
                builds.unlink()
            await api.deployed(b"other", name="hello")  # and then it may

    run(main())


def test_a_caller_that_hangs_up_ends_its_build(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            env = {"MODE": "hold", "BUILDS": str(builds)}
            task = asyncio.create_task(api.deploy(name="hello", env=env))
            await started(builds)
            task.cancel()
            await asyncio.wait((task,))
            assert api.node.deploying == set()
            assert (await api.deployed(name="hello"))["version"] == 1

    run(main())


def test_a_name_nobody_chose_does_not_replace_an_app_from_elsewhere(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(source="m:/a/hello")
            for content in (b"package", b"other"):  # the same package too
                error = refused(await api.deploy(content, source="m:/b/hello"), "name_taken")
                assert "'/a/hello'" in error["message"]
                assert "--name hello" in error["hint"]
            refused(await api.deploy(b"other", source=""), "name_taken")
            assert (await api.deployed(b"other", source="m:/b/hello", name="hello"))["version"] == 2
            # Now it is that folder's.
            assert (await api.deployed(b"third", source="m:/b/hello"))["version"] == 3

    run(main())


def test_a_package_that_was_not_uploaded_is_told(opened, run):
    async def main():
        async with opened() as api:
            response = await api.http.post("/v1/deploys", json={"package": "a" * 64, "name": "x"})
            assert response.status_code == 404
            assert "upload" in response.json()["error"]["hint"]

    run(main())


def test_rollback_goes_to_the_version_before_or_the_one_named(opened, run):
    async def main():
        async with opened() as api:
            for content in (b"one", b"two", b"three"):
                await api.deployed(content)

            async def rollback(version):
                return await api.http.post("/v1/apps/hello/rollback", json={"version": version})

            assert (await rollback(None)).json()["version"] == 2
            assert api.routes.get("hello").version == 2
            assert (await rollback(None)).json()["version"] == 1
            missing = await rollback(None)
            assert (missing.status_code, missing.json()["error"]["code"]) == (
                404,
                "version_not_found",
            )
            assert (await rollback(3)).json()["version"] == 3
            assert (await rollback(9)).json()["error"]["code"] == "version_not_found"
            assert api.routes.get("hello").version == 3

    run(main())


def test_rollback_to_damaged_blobs_is_refused_and_the_live_version_stays(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            tree = api.routes.get("hello").app_tree
            await api.deployed(b"two")
            api.node.blobs.path(tree).write_bytes(b"rot")
            response = await api.http.post("/v1/apps/hello/rollback", json={"version": 1})
            error = response.json()["error"]
            assert error["code"] == "blob_corrupt"
            assert tree in error["message"]
            assert api.routes.get("hello").version == 2

    run(main())


def test_after_a_crash_the_routes_are_what_was_committed(opened, run, data_dir):
    async def main():
        async with opened() as api:
            await api.deployed(b"one")
            await api.deployed(b"two")
            await api.deployed(name="gone")
        # As if the process had died between the commit and the routes: they are older, or lost.
        with closing(sqlite3.connect(data_dir / "routes" / "routes.db")) as db, db:
            db.execute("DELETE FROM routes WHERE name = 'gone'")
        async with opened() as api:
            assert api.routes.get("hello").version == 2
            assert api.routes.get("gone").version == 1
        (data_dir / "routes" / "routes.db").write_bytes(b"rubbish" * 1000)
        async with opened() as api:
            assert api.routes.get("hello").version == 2

    run(main())


def test_when_the_routes_cannot_be_written_the_deploy_is_taken_back(opened, run, monkeypatch):
    from isopod.errors import DiskFull

    async def main():
        async with opened() as api:
            await api.deployed(b"one")

            def full(_route):
                raise DiskFull("routes.db: database or disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(api.node.routes, "put", full)
                refused(await api.deploy(b"two"), "disk_full")
                refused(await api.deploy(b"two", name="new"), "disk_full")
            assert (await api.get("/v1/apps/hello"))["app"]["version"] == 1
            assert (await api.http.get("/v1/apps/new")).status_code == 404

    run(main())


def test_env_values_are_in_no_answer(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed(env={"API_KEY": "hunter2"})
            for path in ("/v1/apps", "/v1/apps/hello", "/v1/status"):
                assert "hunter2" not in str(await api.get(path))
            assert (await api.get("/v1/apps/hello"))["env_names"] == ["API_KEY"]
            assert api.routes.get("hello").spec.env == {"API_KEY": "hunter2"}

    run(main())


def test_an_app_behind_a_cordon_is_built_where_no_other_worker_may_read(opened, run, tmp_path):
    async def body():
        async with opened() as api:
            settings, builds = api.node.settings, tmp_path / "builds"
            acme = await api.tenant("acme")
            env = {"BUILDS": str(builds)}
            # A first version that asks for it: the builder is the first to know.
            wary = {"ISOLATION": json.dumps({"cordon": "tenant"})}
            await api.deployed(b"everybody's", name="open", env=env)
            for content in (b"wary", b"everybody's"):
                tree = settings.trees_dir / hashlib.sha256(content).hexdigest()
                tree.mkdir(exist_ok=True)
                await acme.deployed(content, name=f"app{len(content)}", env=env | wary)
                assert tree.exists() == (content != b"wary")
            cordon = await api.http.patch("/v1/tenants/acme", json={"cordon": "tenant"})
            assert cordon.status_code == 200
            await acme.deployed(b"next", name="shop", env=env)
            await api.deployed(b"other", name="other", env=env)
            jobs = [json.loads(line) for line in builds.read_text().splitlines()]
            shared = {"trees_dir": str(settings.trees_dir), "images_dir": str(settings.images_dir)}
            assert [shared.items() <= one.items() for one in jobs[-2:]] == [False, True]
            apart = Path(jobs[-2]["trees_dir"]).parent
            assert apart.parent == settings.uploads_dir
            assert not apart.exists()

    run(body())
