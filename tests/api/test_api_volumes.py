"""Volumes over the API: made, mounted, filled, copied out, deleted; whatever goes wrong."""

import asyncio
import io
import json
import sqlite3
import struct
import sys
import tarfile
from contextlib import closing

import pytest

from isopod.control.volume_places import keep_places, misplaced
from isopod.model.tenant import TenantName
from isopod.volumes.lease import Lease, VolumeFolder, is_wanted, try_lease

DATA = json.dumps([{"name": "data", "mount": "/data"}])


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return out.getvalue()


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened if one.isreg()}


async def make(api, name: str = "data", size_mib: int = 10) -> dict:
    response = await api.http.post("/v1/volumes", json={"name": name, "size_mib": size_mib})
    assert response.status_code == 200, response.text
    return response.json()


def refused(response, code: str) -> dict:
    error = response.json()["error"]
    assert error["code"] == code, error
    return error


def folder(api, name: str = "data", tenant: str = "default") -> VolumeFolder:
    return VolumeFolder.of(api.node.settings.volumes_dir, tenant, name)


def test_a_volume_is_made_filled_copied_out_and_deleted(opened, run):
    async def body():
        async with opened() as api:
            assert (await make(api))["app"] == ""
            refused(await api.http.post("/v1/volumes", json={"name": "data"}), "name_taken")
            sent = await api.http.post(
                "/v1/volumes/data/archive", params={"path": "/in"}, content=tar(a=b"1", b__c=b"22")
            )
            assert sent.status_code == 200, sent.text
            assert (sent.json()["files"], sent.json()["bytes"]) == (2, 3)
            got = await api.http.get("/v1/volumes/data/archive")
            assert unpacked(got.content) == {"in/a": b"1", "in/b/c": b"22"}
            one = await api.http.get("/v1/volumes/data/archive", params={"path": "in/b/c"})
            assert unpacked(one.content) == {"c": b"22"}
            refused(
                await api.http.get("/v1/volumes/data/archive", params={"path": "no"}),
                "path_not_found",
            )
            back = await api.http.put("/v1/volumes/data/archive", content=tar(only=b"this"))
            assert back.status_code == 200, back.text
            assert [one.name for one in folder(api).data.iterdir()] == ["only"]
            (listed,) = (await api.get("/v1/volumes"))["volumes"]
            assert listed["size_mib"] == 10 and listed["used_bytes"] > 0
            gone = await api.http.delete("/v1/volumes/data")
            assert gone.status_code == 200, gone.text
            assert (await api.get("/v1/volumes"))["volumes"] == []
            assert not folder(api).path.exists()
            assert not list(api.node.settings.uploads_dir.iterdir())
            actions = [one["action"] for one in (await api.get("/v1/audit"))["entries"]]
            assert {"volume.create", "volume.copy_in", "volume.backup", "volume.copy_out"} <= set(
                actions
            )

    run(body())


def test_one_app_mounts_a_volume_and_it_cannot_be_deleted_then(opened, run):
    async def body():
        async with opened() as api:
            last = (await api.deploy(name="one", env={"VOLUMES": DATA}))[-1]
            assert last["error"]["code"] == "volume_not_found"
            assert "isopod volumes create data" in last["error"]["hint"]
            await make(api)
            await api.deployed(name="one", env={"VOLUMES": DATA})
            (mounted,) = api.routes.get("one").volumes
            assert (mounted.mount, mounted.size_mib) == ("/data", 10)
            other = (await api.deploy(name="two", env={"VOLUMES": DATA}))[-1]
            assert other["error"]["code"] == "volume_in_use"
            assert "'one'" in other["error"]["message"]
            refused(await api.http.delete("/v1/volumes/data"), "volume_in_use")
            resized = await api.http.patch("/v1/volumes/data", json={"size_mib": 20})
            assert resized.json()["app"] == "one"
            api.routes.changed()
            assert api.routes.get("one").volumes[0].size_mib == 20
            # A version without it lets it go; going back takes it again.
            await api.deployed(b"without", name="one")
            await api.deployed(name="two", env={"VOLUMES": DATA})
            back = await api.http.post("/v1/apps/one/rollback", json={"version": 1})
            refused(back, "volume_in_use")
            await api.http.delete("/v1/apps/two")
            back = await api.http.post("/v1/apps/one/rollback", json={"version": 1})
            assert back.status_code == 200, back.text
            await api.http.delete("/v1/apps/one")
            assert (await api.http.delete("/v1/volumes/data")).status_code == 200

    run(body())


def test_volumes_are_a_tenants_own_and_count_in_its_storage(opened, run):
    async def body():
        async with opened() as api:
            acme = await api.tenant("acme", storage_mib=100)
            other = await api.tenant("other")
            await make(acme, size_mib=60)
            await make(other, size_mib=1)
            too_much = {"name": "more", "size_mib": 60}
            error = refused(await acme.http.post("/v1/volumes", json=too_much), "quota_exceeded")
            assert error["details"]["used"] == 120
            refused(
                await acme.http.patch("/v1/volumes/data", json={"size_mib": 101}), "quota_exceeded"
            )
            await acme.http.post("/v1/volumes/data/archive", content=tar(secret=b"acme's"))
            theirs = await other.http.get("/v1/volumes/data/archive")
            assert unpacked(theirs.content) == {}
            in_use = await api.http.delete("/v1/tenants/acme")
            refused(in_use, "tenant_in_use")
            gone = await api.http.delete("/v1/tenants/acme", params={"force": True})
            assert gone.status_code == 200, gone.text
            assert not folder(api, tenant="acme").path.exists()
            assert folder(api, tenant="other").path.exists()

    run(body())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (hostile("../out"), "archive_invalid"),
        (hostile("a/../../out"), "archive_invalid"),
        (hostile("dev", tarfile.CHRTYPE), "archive_invalid"),
        (hostile("hard", tarfile.LNKTYPE, "/etc/passwd"), "archive_invalid"),
        (hostile("/".join("d" * 300)), "archive_invalid"),
        (hostile("n" * 300), "archive_invalid"),
        (hostile("\udcff"), "archive_invalid"),
        (hostile("nowhere", tarfile.SYMTYPE, ""), "archive_invalid"),
        (hostile("far", tarfile.SYMTYPE, "x/" * 2050), "archive_invalid"),
        (tar(**{"__".join([f"d{n}"] * 100): b"" for n in range(10)}), "volume_too_small"),
        (b"no tar at all" * 100, "archive_invalid"),
        (tar(a=b"x" * 3000)[:2000], "archive_invalid"),
        (tar(large=b"x" * (11 << 20)), "volume_too_small"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_changes_nothing(opened, run, content, code):
    async def body():
        async with opened() as api:
            await make(api)
            await api.http.put("/v1/volumes/data/archive", content=tar(kept=b"this"))
            for method in ("PUT", "POST"):
                url = "/v1/volumes/data/archive"
                refused(await api.http.request(method, url, content=content), code)
            got = await api.http.get("/v1/volumes/data/archive")
            assert unpacked(got.content) == {"kept": b"this"}

    run(body())


def test_no_link_in_a_volume_leads_anybody_out_of_it(opened, run, tmp_path):
    async def body():
        async with opened() as api:
            await make(api)
            outside = tmp_path / "outside"
            outside.mkdir()
            (outside / "secret").write_text("secret")
            data = folder(api).data
            (data / "link").symlink_to(outside)
            (data / "file").symlink_to(outside / "secret")
            (data / "db").write_bytes(b"SQLite format 3\0" + b"nonsense" * 100)
            url = "/v1/volumes/data/archive"
            for path in ("link/secret", "link", "file"):
                refused(await api.http.get(url, params={"path": path}), "path_not_found")
            got = await api.http.get(url)
            assert got.status_code == 200, got.text
            assert set(unpacked(got.content)) == {"db"}
            assert json.loads(got.headers["x-isopod-copied"])["raw"] == ["db"]
            into = await api.http.post(url, params={"path": "link"}, content=tar(planted=b"x"))
            refused(into, "path_not_found")
            over = await api.http.post(url, content=tar(file=b"new", link__planted=b"x"))
            refused(over, "path_not_found")
            assert [one.name for one in outside.iterdir()] == ["secret"]
            assert (outside / "secret").read_text() == "secret"

    run(body())


def test_a_backup_holds_what_a_killed_writer_had_committed(opened, run):
    async def body():
        async with opened() as api:
            await make(api)
            path = folder(api).data / "app.db"
            # As a killed guest leaves it: a write-ahead log, and the folder that was its lock.
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("CREATE TABLE t (n)")
                db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(500)])
                left = {end: path.with_name(f"app.db{end}").read_bytes() for end in ("", "-wal")}
            for end, content in left.items():
                path.with_name(f"app.db{end}").write_bytes(content)
            path.with_name("app.db.lock").mkdir()
            got = await api.http.get("/v1/volumes/data/archive")
            files = unpacked(got.content)
            assert set(files) == {"app.db"}
            copy = api.node.settings.data_dir / "copy.db"
            copy.write_bytes(files["app.db"])
            with closing(sqlite3.connect(copy)) as db:
                assert db.execute("SELECT count(*) FROM t").fetchone() == (500,)
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            # Put back over a database whose log is of another one, it is not mixed with that.
            path.with_name("app.db-wal").write_bytes(b"of another")
            sent = await api.http.post("/v1/volumes/data/archive", content=got.content)
            assert sent.status_code == 200, sent.text
            assert not path.with_name("app.db-wal").exists()

    run(body())


def test_who_uses_a_volume_is_waited_for(opened, run, monkeypatch):
    async def body():
        async with opened() as api:
            await make(api)
            held = try_lease(folder(api), worker=3)
            assert isinstance(held, Lease)
            copying = api.http.get("/v1/volumes/data/archive")
            task = asyncio.ensure_future(copying)
            while not is_wanted(folder(api)):
                await asyncio.sleep(0.01)
            assert try_lease(folder(api), worker=4) == 3
            for method in ("GET", "PUT"):
                refused(await api.http.request(method, "/v1/volumes/data/archive"), "volume_busy")
            assert len(list(api.node.settings.uploads_dir.iterdir())) <= 2  # of the first
            held.release()
            assert (await task).status_code == 200
            again = try_lease(folder(api), worker=4)
            assert isinstance(again, Lease) and again.epoch > held.epoch
            again.release()

    run(body())


def a_log_of(pages: int, database: bytes) -> bytes:
    """A write-ahead log that holds the first page alone, and says how many there are."""
    page = database[:18] + b"\2\2" + database[20:28] + struct.pack(">I", pages) + database[32:4096]
    head = struct.pack(">6I", 0x377F0683, 3007000, 4096, 0, 1, 2)
    sums = log_sums(head, (0, 0))
    frame = struct.pack(">2I", 1, pages)
    return b"".join(
        (
            *(head, struct.pack(">2I", *sums)),
            *(frame, struct.pack(">2I", 1, 2), struct.pack(">2I", *log_sums(frame + page, sums))),
            page,
        )
    )


def log_sums(data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    for first, second in struct.iter_unpack(">2I", data):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def test_a_copy_is_no_larger_than_the_volume_may_be_whatever_it_pretends_to_hold(opened, run):
    async def body():
        async with opened() as api:
            await make(api)
            url, data = "/v1/volumes/data/archive", folder(api).data
            with closing(sqlite3.connect(data / "db")) as db:
                db.execute("PRAGMA page_size = 4096")
                db.execute("CREATE TABLE t (n)")
            database = (data / "db").read_bytes()
            (data / "db").write_bytes(database[:18] + b"\2\2" + database[20:])
            (data / "db-wal").write_bytes(a_log_of(100_000, database))  # 400 MiB
            got = await api.http.get(url)
            assert got.status_code == 200, got.text
            assert len(got.content) < 1 << 20
            assert json.loads(got.headers["x-isopod-copied"])["raw"] == ["db"]
            (data / "once").write_bytes(b"x" * (5 << 20))
            for number in range(30):
                (data / f"again-{number}").hardlink_to(data / "once")
            refused(await api.http.get(url), "volume_too_small")
            assert list(api.node.settings.uploads_dir.iterdir()) == []

    run(body())


def test_a_link_in_a_volumes_place_leads_to_no_other_volume(opened, run):
    async def body():
        async with opened() as api:
            await make(api)
            await make(api, "other")
            (folder(api, "other").data / "file").write_text("another's")
            # As a worker could that was taken over: the folder is one that it writes to.
            folder(api).path.rename(api.node.settings.data_dir / "former")
            for name in ("data", "new"):
                folder(api, name).path.symlink_to("other")
            for method in ("GET", "PUT"):
                got = await api.http.request(
                    method, "/v1/volumes/data/archive", content=tar(file=b"x")
                )
                assert got.status_code == 500, got.text
            await make(api, "new")
            assert (folder(api, "other").data / "file").read_text() == "another's"

    run(body())


def test_a_copier_that_was_taken_over_fills_nobodys_memory(opened, run, monkeypatch):
    endless = "import sys\nwhile True: sys.stdout.write('x' * 65536)"

    async def body():
        async with opened() as api:
            await make(api)
            monkeypatch.setattr(
                "isopod.control.volumes.child_argv", lambda name: [sys.executable, "-c", endless]
            )
            failed = refused(await api.http.get("/v1/volumes/data/archive"), "internal_error")
            assert "the process that copies volumes" in failed["message"]

    run(body())


def test_a_journal_that_names_another_file_removes_none(opened, run):
    async def body():
        async with opened() as api:
            await make(api)
            data = folder(api).data
            with closing(sqlite3.connect(data / "db", isolation_level=None)) as db:
                db.execute("CREATE TABLE t (n)")
                db.execute("PRAGMA cache_size = 1")
                db.execute("BEGIN")
                db.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,) for _ in range(50)])
                left = {end: (data / f"db{end}").read_bytes() for end in ("", "-journal")}
            other = str(folder(api).path / "lease").encode()
            # sqlite3.c, writeSuperJournal
            ends = struct.pack(">2I", len(other), sum(other)) + bytes.fromhex("d9d505f920a163d7")
            left["-journal"] += struct.pack(">I", 0x40000000 // 4096 + 1) + other + ends
            for end, content in left.items():
                (data / f"db{end}").write_bytes(content)
            got = await api.http.get("/v1/volumes/data/archive")
            assert got.status_code == 200, got.text
            assert set(unpacked(got.content)) == {"db", "db-journal"}
            assert isinstance(try_lease(folder(api), worker=1), Lease)

    run(body())


def test_a_volume_is_where_its_tenants_own_worker_alone_may_open_it(opened, run):
    async def body():
        async with opened() as api:
            acme = await api.tenant("acme")
            await make(acme, "used")
            await make(acme, "unused")
            await acme.http.post("/v1/volumes/used/archive", content=tar(secret=b"acme's"))
            mounts = json.dumps([{"name": "used", "mount": "/data"}])
            await acme.deployed(name="shop", env={"VOLUMES": mounts})
            shared, apart = api.node.settings.volumes_dir, api.node.settings.apart_volumes_dir
            moving = asyncio.create_task(keep_places(api.node))

            async def cordon(which: str, *, here, there) -> None:
                body = {"cordon": which}
                assert (await api.http.patch("/v1/tenants/acme", json=body)).status_code == 200
                async with asyncio.timeout(60):
                    while not (here / "acme" / "used").exists():
                        await asyncio.sleep(0.01)
                assert not (there / "acme" / "used").exists()
                got = await acme.http.get("/v1/volumes/used/archive")
                assert unpacked(got.content) == {"secret": b"acme's"}

            held = try_lease(VolumeFolder.of(shared, "acme", "used"), worker=1)
            changing = asyncio.create_task(cordon("tenant", here=apart, there=shared))
            async with asyncio.timeout(60):
                while "acme used" not in api.node.copying:
                    await asyncio.sleep(0.01)
            assert not (apart / "acme" / "used").exists()
            held.release()
            await changing
            async with asyncio.timeout(60):
                while not (apart / "acme" / "unused").exists():
                    await asyncio.sleep(0.01)
            await make(acme, "new")
            assert (apart / "acme" / "new").exists()
            await cordon("shared", here=shared, there=apart)
            # No app needs these, and no worker gets to see them for that.
            assert (apart / "acme" / "unused").exists()
            assert not misplaced(TenantName("acme"), api.node)
            assert (await acme.http.delete("/v1/volumes/unused")).status_code == 200
            assert not (apart / "acme" / "unused").exists()
            moving.cancel()
            # A control that was killed before: the next one finds what has to be moved.
            body = {"cordon": "tenant"}
            assert (await api.http.patch("/v1/tenants/acme", json=body)).status_code == 200
        async with opened() as api:
            moving = asyncio.create_task(keep_places(api.node))
            async with asyncio.timeout(60):
                while not (apart / "acme" / "used").exists():
                    await asyncio.sleep(0.01)
            moving.cancel()

    run(body())
