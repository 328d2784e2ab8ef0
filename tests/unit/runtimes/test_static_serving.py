"""A worker's sites: what is kept in memory, who waits for whom, and what is damage."""

import asyncio
import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import BlobMissing, FilesUnreadable
from isopod.model.app import AppSpec
from isopod.model.ids import AppName
from isopod.model.route import Route
from isopod.model.tenant import TenantName
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.static import building
from isopod.runtimes.static.kept import Kept
from isopod.runtimes.static.serving import StaticSites
from isopod.runtimes.static.threads import FairThreads

BIG = bytes(range(256)) * 4000


class Shelf:
    """Trees of sites, as a node has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = BlobStore(path / "blobs")
        self.trees = TreeCache(path / "trees", self.blobs)

    def site(self, tenant: str, text: str) -> Route:
        app = self.path / f"{tenant}-{text}"
        app.mkdir()
        (app / "index.html").write_text(text)
        (app / "big.bin").write_bytes(BIG)
        building.build(app, ".", spa=False, now=1_700_000_000)
        tree = self.trees.make(app)
        spec = AppSpec(AppName("x"), "static", ".")
        return Route(AppName("x"), 1, tree, tree, tree, spec, tenant=TenantName(tenant))

    def sites(self) -> StaticSites:
        """As a new worker has them: nothing is verified yet."""
        return StaticSites(TreeCache(self.path / "trees", self.blobs))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def get(sites: StaticSites, route: Route, path: str = "/") -> bytes:
    answer = await sites.answer(route, DirectRequest("GET", path, "", []))
    body = answer.body
    if answer.pieces is not None:
        body = b"".join([piece async for piece in answer.pieces])
    return body


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- damage, and what is none ---------------------------------------------------------------


def test_a_worker_without_descriptors_takes_no_tree_for_damaged(shelf):
    route = shelf.site("a", "hello")
    tree = shelf.trees.path(route.app_tree)
    inode = tree.stat().st_ino

    async def main() -> None:
        sites = shelf.sites()
        too_many = pytest.raises(FilesUnreadable, match="Too many open files")
        with no_descriptor_left(), too_many as caught:  # its tree is not verified
            await get(sites, route)
        assert (caught.value.status, caught.value.code) == (503, "files_unreadable")
        assert await get(sites, route) == b"hello"
        with no_descriptor_left():
            assert await get(sites, route) == b"hello"  # from memory
            with pytest.raises(FilesUnreadable):
                await get(sites, route, "/big.bin")
        (tree / "files/index.html").unlink()  # seen only if the tree were verified again
        assert await get(sites, route, "/big.bin") == BIG

    asyncio.run(main())
    assert tree.stat().st_ino == inode, "the tree was made again"


def test_no_descriptors_are_no_damage_of_a_blob_or_an_image(shelf, tmp_path):
    digest = shelf.blobs.put_bytes(b"x")
    images = ImageCache(tmp_path / "images", shelf.blobs, limit_bytes=1 << 20)
    kept = tmp_path / "images" / digest
    kept.mkdir()
    (kept / "entry.json").write_text("{}")
    with no_descriptor_left():
        with pytest.raises(FilesUnreadable):
            shelf.blobs.open_verified(digest)
        with pytest.raises(FilesUnreadable):
            images.open(digest, tmp_path)
    assert kept.is_dir()
    assert shelf.blobs.open_verified(digest).read_bytes() == b"x"


@pytest.mark.parametrize("damage", ["gone", "shorter", "a folder", "a link"])
def test_a_file_that_is_gone_or_another_is_damage_and_made_again(shelf, damage):
    route = shelf.site("a", "hello")
    file = shelf.trees.path(route.app_tree) / "files/big.bin"

    async def main() -> None:
        sites = shelf.sites()
        assert await get(sites, route, "/big.bin") == BIG
        if damage == "shorter":
            os.truncate(file, 100)
        else:
            file.unlink()
        if damage == "a folder":
            file.mkdir()
        elif damage == "a link":
            file.symlink_to("/etc/passwd")
        with pytest.raises(BlobMissing):
            await get(sites, route, "/big.bin")
        assert await get(sites, route, "/big.bin") == BIG

    asyncio.run(main())


# -- threads --------------------------------------------------------------------------------


def test_trees_that_take_long_to_verify_hold_up_nobody_else(shelf):
    slow = [shelf.site("large", f"large {number}") for number in range(3)]
    quick = shelf.site("quick", "quick")
    listings = []
    for route in slow:
        # A tree whose verification begins, and ends when the test says what it holds.
        listing = shelf.trees.path(route.app_tree).parent / "files.json"
        listings.append((listing, listing.read_bytes()))
        listing.unlink()
        os.mkfifo(listing)

    async def main() -> None:
        sites = shelf.sites()
        waiting = [asyncio.create_task(get(sites, route)) for route in slow]
        gone = asyncio.create_task(get(sites, slow[0]))
        await asyncio.sleep(0)
        gone.cancel()  # a client that went away: the others wait on
        assert await get(sites, quick) == b"quick"
        assert await get(sites, quick, "/big.bin") == BIG
        assert not any(task.done() for task in waiting)
        for listing, text in listings:
            await asyncio.to_thread(listing.write_bytes, text)
        assert await asyncio.gather(*waiting) == [b"large 0", b"large 1", b"large 2"]

    try:
        asyncio.run(main())
    finally:
        for listing, _ in listings:  # what is verified yet ends
            os.close(os.open(listing, os.O_RDWR | os.O_NONBLOCK))
            listing.unlink()


def test_one_tenant_leaves_a_thread_for_others_and_they_take_turns():
    async def main() -> None:
        threads = FairThreads(2, of_one=1, name="test")
        go = threading.Event()
        done: list[str] = []

        async def work(tenant: str, name: str) -> None:
            await threads.run(tenant, go.wait)
            done.append(name)

        greedy = [asyncio.create_task(work("a", f"a{n}")) for n in range(20)]
        await asyncio.sleep(0)
        cancelled = asyncio.create_task(work("b", "never"))
        await asyncio.sleep(0)
        cancelled.cancel()  # the thread is at work for it all the same
        later = [asyncio.create_task(work(name, name)) for name in "bc"]
        await asyncio.sleep(0)
        assert not done
        go.set()
        await asyncio.gather(*greedy, *later)
        assert "never" not in done and len(done) == 22
        assert {"b", "c"} <= set(done[:6]), done

    asyncio.run(main())


def test_an_error_in_a_thread_is_the_callers_and_gives_the_thread_back():
    async def main() -> None:
        threads = FairThreads(1, of_one=1, name="test")
        for _ in range(3):
            with pytest.raises(ValueError, match="invalid literal"):
                await threads.run("a", int, "x")
        assert await threads.run("a", int, "7") == 7

    asyncio.run(main())


# -- memory ---------------------------------------------------------------------------------


def test_what_was_used_last_is_kept():
    kept: Kept[int, str] = Kept(100)
    for number in range(10):
        kept.put("a", number, str(number), 10)
    assert kept.get("a", 0) == "0"
    kept.put("a", 10, "10", 10)
    assert kept.get("a", 0) == "0" and kept.get("a", 1) is None
    assert kept.get("b", 0) is None
    kept.put("a", 11, "too large", 101)
    assert kept.size_of("a") == 0


def test_who_floods_the_memory_takes_only_its_own():
    kept: Kept[int, bytes] = Kept(1000)
    kept.put("modest", 1, b"x", 300)
    for number in range(1000):
        kept.put("greedy", number, b"y", 20)
        if number % 50 == 0:
            kept.put("other", number, b"z", 10)
    assert kept.get("modest", 1) == b"x" and kept.size_of("other") == 200
    assert kept.get("greedy", 999) == b"y" and kept.size_of("greedy") <= 500


CALLS = st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 60))


@given(st.lists(CALLS, max_size=60), st.integers(1, 120))
def test_there_is_never_more_than_the_room_and_a_small_part_is_left_alone(calls, room):
    kept: Kept[int, int] = Kept(room)
    for tenant, key, size in calls:
        before = {one: kept.size_of(one) for one in "abc"}
        kept.put(tenant, key, size, size)
        after = {one: kept.size_of(one) for one in "abc"}
        assert sum(after.values()) <= room
        for one in set("abc") - {tenant}:
            if before[one] <= room // 3:
                assert after[one] == before[one]


def test_sites_that_are_let_go_are_opened_again(shelf, monkeypatch):
    monkeypatch.setattr("isopod.runtimes.static.serving._MAX_SITE_FILES", 8)
    routes = [shelf.site("a", f"site {number}") for number in range(6)]

    async def main() -> None:
        sites = shelf.sites()
        for _ in range(2):
            for number, route in enumerate(routes):
                assert await get(sites, route) == f"site {number}".encode()

    asyncio.run(main())
