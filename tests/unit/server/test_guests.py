"""A worker's guests when their image is damaged, gone or not theirs: each request is answered."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.engine.scheduler import Scheduler
from isopod.host.capabilities import no_world
from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.snapshot import Snapshot
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python import snapshotting
from isopod.runtimes.python.guests import PythonGuests
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.taking import Source
from isopod.server import guests
from isopod.server.guests import GuestMaker

# It answers with the process that imported it: another one for each boot, one for an image.
APP = """
import os, uuid
boot = str(uuid.uuid4())
def app(environ, start_response):
    start_response("200 OK", [])
    return [boot.encode()]
"""
REQUEST = GuestRequest(
    method="GET", path="/", query="", protocol="HTTP/1.1", scheme="http", host="localhost",
    port=80, client="127.0.0.1",
)  # fmt: skip


async def no_secrets(_route: Route) -> dict[str, str]:
    return {}


@dataclass
class Bench:
    """One deployed app with an image, and workers that start it."""

    folder: Path
    runtime: PythonRuntime
    runner: asyncio.Runner
    scheduler: Scheduler
    route: Route
    blobs: BlobStore
    trees: TreeCache
    images_dir: Path
    image_boot: str = ""
    makers: list[GuestMaker] = field(default_factory=list)

    @property
    def snapshot(self) -> Snapshot:
        assert self.route.snapshot
        return self.route.snapshot

    @property
    def digest(self) -> Digest:
        return self.snapshot.image

    def worker(self, images_dir: Path | None = None) -> GuestMaker:
        tmp = self.folder / "tmp"
        tmp.mkdir(exist_ok=True)
        images = ImageCache(images_dir or self.images_dir, self.blobs, limit_bytes=1 << 30)
        maker = GuestMaker(runtimes={"python": PythonGuests(self.runtime)},
                           scheduler=self.scheduler, trees=self.trees, images=images,
                           tmp_root=tmp, world=no_world(tmp), secrets=no_secrets,
                           volumes_dir=tmp)  # fmt: skip
        self.makers.append(maker)
        return maker

    def ask(self, maker: GuestMaker, route: Route | None = None) -> tuple[str, str]:
        """Who answered ("image" or "boot"), and what the log says."""
        said: list[bytes] = []

        async def main() -> bytes:
            guest, remove = await maker(route or self.route, lambda _, data: said.append(data))
            try:
                await guest.start()
                return (await guest.send(REQUEST, self.no_body)).body
            finally:
                guest.close()
                remove()
                remove()

        body = self.runner.run(main()).decode()
        return ("image" if body == self.image_boot else "boot"), b"".join(said).decode()

    @staticmethod
    async def no_body(_size: int) -> bytes:
        return b""

    def again(self) -> None:
        """The image and its blob whole, nothing else."""
        for maker in self.makers:
            maker.close()
        self.makers.clear()


@pytest.fixture(scope="module")
def made(prepared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("guests")
    blobs = BlobStore(folder / "blobs")
    trees = TreeCache(folder / "trees", blobs)
    for name, files in (("app", {"app.py": APP}), ("site", {"empty.txt": ""})):
        for file, text in files.items():
            path = folder / "src" / name / file
            path.parent.mkdir(parents=True)
            path.write_text(text)
    app_tree, site_tree = (trees.make(folder / "src" / name) for name in ("app", "site"))
    runtime = PythonRuntime(prepared_cache)
    images = ImageCache(folder / "images", blobs, limit_bytes=1 << 30)
    spec = AppSpec(AppName("x"), "python", "app:app")
    work = folder / "work"
    work.mkdir()
    snapshot = snapshotting.take_snapshot(
        runtime,
        Source(trees.path(app_tree), trees.path(site_tree), spec),
        images=images,
        work=work,
    )
    assert snapshot.verdict == "sound"
    with asyncio.Runner() as runner:

        async def scheduler() -> Scheduler:
            return await Scheduler(runtime.linkage.engine).__aenter__()

        running = runner.run(scheduler())
        route = Route(AppName("x"), 1, Digest("0" * 64), app_tree, site_tree, spec, snapshot)
        bench = Bench(folder, runtime, runner, running, route, blobs, trees, folder / "images")
        first = bench.worker()
        answers = set()
        for _ in range(2):
            bench.image_boot = ""
            guest_says: list[bytes] = []

            async def once(said: list[bytes] = guest_says) -> None:
                guest, remove = await first(route, lambda *_: None)
                await guest.start()
                said.append((await guest.send(REQUEST, bench.no_body)).body)
                guest.close()
                remove()

            runner.run(once())
            answers.add(guest_says[0].decode())
        assert len(answers) == 1  # both from the image
        bench.image_boot = answers.pop()
        bench.again()
        yield bench
        bench.again()
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture
def bench(made: Bench) -> Iterator[Bench]:
    blob = made.blobs.path(made.digest)
    whole = blob.read_bytes()
    yield made
    made.again()
    blob.write_bytes(whole)
    made.worker()._images.delete(made.digest)


def image(bench: Bench) -> Path:
    return bench.images_dir / bench.digest / "image"


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 600)
        byte = file.read(1)[0]
        file.seek(4096 * 600)
        file.write(bytes([byte ^ 0xFF]))


def test_an_app_starts_from_its_image_and_says_nothing_of_it(bench):
    worker = bench.worker()
    assert [bench.ask(worker) for _ in range(3)] == [("image", "")] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 65536 * 10),
        lambda path: os.truncate(path, 0),
        flip,
        lambda path: path.unlink(),
        lambda path: (path.parent / "entry.json").write_text("garbage"),
    ],
)
def test_a_damaged_image_is_told_and_made_again(bench, damage):
    bench.ask(bench.worker())  # makes it
    damage(image(bench))
    worker = bench.worker()
    who, said = bench.ask(worker)
    assert who == "image"
    assert f"image {bench.digest!r} was damaged" in said and "made again" in said
    assert bench.ask(worker) == ("image", "")


def test_what_was_found_in_the_background_is_told_by_the_first_request(bench):
    bench.ask(bench.worker())
    flip(image(bench))
    worker = bench.worker()

    async def made_ready() -> None:
        worker.make_ready(bench.route)
        await asyncio.gather(*worker._tasks)

    bench.runner.run(made_ready())
    who, said = bench.ask(worker)
    assert who == "image" and "was damaged (its bytes have another digest); made again" in said
    assert bench.ask(worker) == ("image", "")
    bench.runner.run(made_ready())
    assert worker._unsaid == {}


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 65536 * 10), flip])
def test_an_image_that_is_damaged_under_a_running_worker_is_made_again(bench, damage):
    worker = bench.worker()
    assert bench.ask(worker) == ("image", "")
    damage(image(bench))
    who, said = bench.ask(worker)
    assert who == "image"
    assert "was written to while it was in use" in said
    assert bench.ask(worker) == ("image", "")


def test_an_image_that_is_deleted_under_a_running_worker_harms_nobody(bench):
    worker = bench.worker()
    assert bench.ask(worker)[0] == "image"
    bench.worker()._images.delete(bench.digest)
    assert bench.ask(worker) == ("image", "")
    assert bench.ask(bench.worker()) == ("image", "")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda blob: blob.unlink(), "blob_missing"),
        (lambda blob: flip_at(blob, 100), "blob_corrupt"),
        (lambda blob: os.truncate(blob, 50), "blob_corrupt"),
    ],
)
def test_without_image_and_blob_the_app_boots_and_says_why(bench, damage, code, monkeypatch):
    bench.worker()._images.delete(bench.digest)
    damage(bench.blobs.path(bench.digest))
    worker = bench.worker()
    who, said = bench.ask(worker)
    assert who == "boot"
    assert said.startswith(f"{code}: ") and said.endswith("; starting without it\n")
    assert bench.ask(worker) == ("boot", "")  # not asked for again at once


def flip_at(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_could_not_be_had_is_asked_for_again_later(bench, monkeypatch):
    blob = bench.blobs.path(bench.digest)
    whole = blob.read_bytes()
    bench.worker()._images.delete(bench.digest)
    blob.unlink()
    worker = bench.worker()
    assert bench.ask(worker)[0] == "boot"
    blob.write_bytes(whole)
    assert bench.ask(worker)[0] == "boot"
    monkeypatch.setattr(guests, "_RETRY_S", 0.0)
    assert bench.ask(worker) == ("image", "")


def test_a_blob_that_is_no_image_is_told(bench):
    other = bench.blobs.put_bytes(b"something else")
    route = replace(bench.route, snapshot=replace(bench.snapshot, image=other))
    who, said = bench.ask(bench.worker(), route)
    assert who == "boot"
    assert said == f"blob_corrupt: blob {other!r} is no memory image; starting without it\n"


@pytest.mark.parametrize("of", ["0" * 64, ""])
def test_an_image_of_another_runtime_is_never_restored(bench, of):
    route = replace(bench.route, snapshot=replace(bench.snapshot, runtime=Digest(of)))
    assert bench.ask(bench.worker(), route) == ("boot", "")


def test_an_app_without_an_image_boots(bench):
    assert bench.ask(bench.worker(), replace(bench.route, snapshot=None)) == ("boot", "")


def test_when_the_images_disk_is_full_the_app_boots(bench, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False,
        capture_output=True,
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("needs root and mount(2): a full disk was NOT tested")
    try:
        who, said = bench.ask(bench.worker(small / "images"))
        assert who == "boot"
        assert said.startswith("disk_full: no space left")
        assert list((small / "images").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def open_images(bench) -> int:
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found += str(bench.images_dir) in str(fd.readlink())
    return found


def test_an_image_that_no_version_wants_any_more_is_closed_after_its_last_start(bench):
    worker = bench.worker()

    async def main() -> None:
        guest, remove = await worker(bench.route, lambda *_: None)  # made, not started
        worker.keep_images({bench.digest})
        assert open_images(bench) == 1
        worker.keep_images(set())
        assert open_images(bench) == 1  # its first slice has yet to map it
        await guest.start()
        assert (await guest.send(REQUEST, bench.no_body)).body.decode() == bench.image_boot
        guest.close()
        remove()
        assert open_images(bench) == 0
        again, remove = await worker(bench.route, lambda *_: None)
        assert open_images(bench) == 1
        again.close()
        remove()
        worker.close()

    bench.runner.run(main())


def test_images_in_use_stay_open_and_others_are_closed(bench, monkeypatch):
    monkeypatch.setattr(guests, "_MAX_OPEN_IMAGES", 1)
    worker = bench.worker()

    def descriptors() -> int:
        return open_images(bench)

    # The same memory under another name: a second image.
    raw = bytearray(bench.blobs.path(bench.digest).read_bytes())
    raw[15 + 8] ^= 1  # its clock
    other = bench.blobs.put_bytes(bytes(raw))
    route = replace(bench.route, snapshot=replace(bench.snapshot, image=other))

    async def main() -> None:
        guest, remove = await worker(bench.route, lambda *_: None)  # made, not started
        second, remove_second = await worker(route, lambda *_: None)
        assert descriptors() == 2
        await guest.start()
        assert (await guest.send(REQUEST, bench.no_body)).body.decode() == bench.image_boot
        guest.close()
        remove()
        assert descriptors() == 1
        await second.start()
        second.close()
        remove_second()
        worker.close()
        assert descriptors() == 0

    bench.runner.run(main())
