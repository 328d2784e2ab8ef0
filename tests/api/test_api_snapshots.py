import asyncio
import json
import os
from dataclasses import replace

from isopod.control.runtimes import RuntimeStatus
from isopod.model.ids import Digest
from isopod.model.snapshot import Finding, Snapshot, plain


def built(path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def sound(image: str, *, private: bool = False) -> Snapshot:
    return replace(plain(""), verdict="sound", image=Digest(image), size=34 << 20, private=private)


PLAIN = plain("it holds what cannot be shared", (Finding("open file", "/tmp/x", "app.py:12"),))


def env_of(snapshot: Snapshot | None, builds, **more: str) -> dict[str, str]:
    """What makes the stub builder hand over `snapshot`."""
    said = {} if snapshot is None else {"SNAPSHOT": json.dumps(snapshot.to_json())}
    return {"BUILDS": str(builds), **said, **more}


def refused(lines: list[dict], code: str) -> dict:
    assert lines[-1].get("error", {}).get("code") == code, lines
    return lines[-1]["error"]


def test_a_snapshot_is_in_the_result_the_app_and_the_route(opened, run, tmp_path):
    async def main():
        async with opened() as api:
            image = await api.put(b"image")
            taken = sound(image)
            result = await api.deployed(env=env_of(taken, tmp_path / "builds"))
            assert Snapshot.from_json(result["snapshot"]) == taken
            assert result["warmup"] == ["GET /"]
            assert api.routes.get("hello").snapshot == taken
            shown = await api.get("/v1/apps/hello")
            assert shown["snapshot"]["image"] == image
            assert shown["starts"] == {"count": 0, "p50_ms": None, "p99_ms": None}
            assert shown["isolation"] == "app"
        async with opened() as api:  # also after a restart
            assert api.routes.get("hello").snapshot == taken

    run(main())


def test_a_builder_that_takes_no_snapshot_is_no_error(opened, run):
    async def main():
        async with opened() as api:
            assert (await api.deployed())["snapshot"] is None
            assert (await api.get("/v1/apps/hello"))["snapshot"] is None
            assert api.routes.get("hello").snapshot is None

    run(main())


def test_the_image_is_not_part_of_the_versions_digest(opened, run, tmp_path):
    other = RuntimeStatus("python", "3.15.1", "8" * 64, 1000, True, "PSF-2.0")

    async def main():
        async with opened() as api:
            image = await api.put(b"image")
            first = await api.deployed(env=env_of(sound(image), tmp_path / "builds"))
            api.node.blobs.delete(Digest(image))
            again = await api.deployed(env=env_of(sound(image), tmp_path / "builds"))
            assert built(tmp_path / "builds") == 2  # what the disk lost is made again
            assert (again["digest"], again["version"]) == (first["digest"], 1)
        async with opened(runtime=other) as api:
            again = await api.deployed(env=env_of(sound(image), tmp_path / "builds"))
            assert (again["digest"], again["version"]) == (first["digest"], 1)

    run(main())


def test_strict_refuses_what_is_not_sound_and_the_old_version_serves_on(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            live = await api.deployed()
            lines = await api.deploy(env=env_of(PLAIN, builds), strict=True)
            error = refused(lines, "snapshot_unsound")
            assert "plain boot, it holds what cannot be shared" in error["message"]
            assert error["whose"] == "app"
            assert error["details"]["findings"] == [
                {"kind": "open file", "what": "/tmp/x", "place": "app.py:12"}
            ]
            assert api.routes.get("hello").digest == live["digest"]
            refused(await api.deploy(env=env_of(None, builds), strict=True), "snapshot_unsound")
            unwarmed = replace(PLAIN, verdict="unwarmed", image=Digest("1" * 64))
            lines = await api.deploy(env=env_of(unwarmed, builds), strict=True)
            assert "unwarmed" in refused(lines, "snapshot_unsound")["message"]
            assert built(builds) == 3
            # What is live without --strict is not let pass with it.
            assert (await api.deployed(env=env_of(PLAIN, builds)))["version"] == 2
            refused(await api.deploy(env=env_of(PLAIN, builds), strict=True), "snapshot_unsound")
            lines = await api.deploy(name="b", env=env_of(PLAIN, builds), strict=True)
            refused(lines, "snapshot_unsound")
            image = await api.put(b"image")
            await api.deployed(env=env_of(sound(image), builds), strict=True)
            again = await api.deployed(env=env_of(sound(image), builds), strict=True)
            assert again["unchanged"]

    run(main())


def test_one_package_under_200_names_is_built_once(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            image = await api.put(os.urandom(4 << 20))
            package = await api.put(os.urandom(2 << 20))
            env = env_of(sound(image), builds)
            for number in range(200):
                body = {"package": package, "name": f"app-{number}", "env": env}
                response = await api.http.post("/v1/deploys", json=body)
                result = json.loads(response.text.splitlines()[-1])["result"]
                assert (result["app"], result["version"]) == (f"app-{number}", 1)
                assert result["built"] == (number == 0)
            assert built(builds) == 1
            assert api.routes.get("app-199").snapshot == sound(image)
            assert api.routes.get("app-199").spec.name == "app-199"
            assert len({api.routes.get(f"app-{n}").digest for n in range(200)}) == 200

    run(main())


def test_names_that_come_at_once_wait_for_the_first_ones_build(opened, run, tmp_path):
    gate, builds = tmp_path / "gate", tmp_path / "builds"
    os.mkfifo(gate)

    async def main():
        async with opened() as api:
            env = env_of(None, builds, MODE="gate", GATE=str(gate))
            package = await api.put(b"package")

            async def deploy(name: str) -> dict:
                body = {"package": package, "name": name, "env": env}
                response = await api.http.post("/v1/deploys", json=body)
                return json.loads(response.text.splitlines()[-1])["result"]

            first = asyncio.create_task(deploy("first"))
            while not built(builds):
                await asyncio.sleep(0.01)
            others = [asyncio.create_task(deploy(f"app-{n}")) for n in range(10)]
            while len(api.node.deploying) < 11:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(gate.write_bytes, b"")
            assert (await first)["built"]
            assert not any(result["built"] for result in await asyncio.gather(*others))
            assert built(builds) == 1
            assert api.node.building == {}

    run(main())


def test_when_the_first_ones_build_fails_the_others_build_themselves(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            env = env_of(None, builds, MODE="fail")
            lines = await asyncio.gather(*(api.deploy(name=f"a{n}", env=env) for n in range(3)))
            for said in lines:
                refused(said, "app_syntax_error")
            assert built(builds) == 3
            assert api.node.building == {}

    run(main())


def test_other_values_share_an_image_that_holds_none_of_them(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            shared = sound(await api.put(b"image"))
            await api.deployed(name="a", env=env_of(shared, builds, KEY="1"))
            result = await api.deployed(name="b", env=env_of(shared, builds, KEY="2"))
            assert (result["built"], built(builds)) == (False, 1)
            assert api.routes.get("b").spec.env["KEY"] == "2"
            assert api.routes.get("a").spec.env["KEY"] == "1"
            more = await api.deployed(name="c", env=env_of(shared, builds, KEY="2", MORE="1"))
            assert (more["built"], built(builds)) == (True, 2)  # another name

    run(main())


def test_a_private_image_is_for_equal_values_only(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            private = sound(await api.put(b"image"), private=True)
            await api.deployed(name="a", env=env_of(private, builds, KEY="1"))
            await api.deployed(name="b", env=env_of(private, builds, KEY="2"))
            assert built(builds) == 2
            result = await api.deployed(name="c", env=env_of(private, builds, KEY="1"))
            assert (result["built"], built(builds)) == (False, 2)
            assert api.routes.get("c").spec.env["KEY"] == "1"

    run(main())


def test_an_image_with_random_bytes_is_its_apps_alone(opened, run, tmp_path):
    builds = tmp_path / "builds"
    drawn = (Finding("entropy", "random bytes may be kept", "app.py:2"),)

    async def main():
        async with opened() as api:
            image = sound(await api.put(b"image"), private=True)
            env = env_of(replace(image, findings=drawn), builds)
            for number, name in enumerate(["a", "b", "c"], start=1):
                await api.deployed(name=name, env=env)
                assert built(builds) == number

    run(main())


def test_an_app_without_an_image_starts_with_other_values_only_after_a_build(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            await api.deployed(name="a", env=env_of(PLAIN, builds, KEY="1"))
            await api.deployed(name="b", env=env_of(PLAIN, builds, KEY="2"))
            assert built(builds) == 2

    run(main())


def test_without_a_name_the_builder_reads_the_manifest(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            env = env_of(None, builds)
            await api.deployed(name="a", env=env)
            await api.deployed(env=env, folder_name="other", source="m:/other")
            assert built(builds) == 2
            await api.deployed(name="c", env=env)  # and that build serves names, too
            assert built(builds) == 2

    run(main())


def test_damaged_blobs_are_taken_over_by_nobody(opened, run, tmp_path):
    builds = tmp_path / "builds"

    async def main():
        async with opened() as api:
            image = await api.put(b"image")
            env = env_of(sound(image), builds)
            await api.deployed(name="a", env=env)
            await api.deployed(name="b", env=env)
            assert built(builds) == 1
            api.node.blobs.path(Digest(image)).write_bytes(b"rot")
            await api.deployed(name="c", env=env)
            assert built(builds) == 2

    run(main())


def test_another_runtime_takes_nothing_over(opened, run, tmp_path):
    builds = tmp_path / "builds"
    newer = RuntimeStatus("python", "3.15.1", "8" * 64, 1000, True, "PSF-2.0")

    async def main():
        async with opened() as api:
            await api.deployed(name="a", env=env_of(None, builds))
        async with opened(runtime=newer) as api:
            assert (await api.deployed(name="b", env=env_of(None, builds)))["built"]

    run(main())


def test_start_times_are_of_all_workers(opened, run):
    async def main():
        async with opened() as api:
            await api.deployed()
            servers = []
            for number, starts in enumerate(([float(n) for n in range(1, 100)], [1000.0])):
                apps = {"hello": {"requests": 1, "starts_ms": starts}}

                async def on_connection(reader, writer, number=number, apps=apps):
                    await reader.readline()
                    said = {"pid": 7, "worker": number, "instances": [], "apps": apps}
                    writer.write(json.dumps(said).encode() + b"\n")
                    await writer.drain()
                    writer.close()

                socket = api.node.settings.run_dir / f"worker-{number}.sock"
                servers.append(await asyncio.start_unix_server(on_connection, socket))
            shown = await api.get("/v1/apps/hello")
            assert shown["starts"] == {"count": 100, "p50_ms": 50.0, "p99_ms": 99.0}
            assert shown["app"]["requests"] == 2
            for server in servers:
                server.close()
                await server.wait_closed()

    run(main())
