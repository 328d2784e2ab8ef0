# ruff: noqa: E501  scripts in one line
"""Images on a real disk: damage, races, eviction, hostile blobs."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from isopod.blobs.images import PAGE, ImageCache, OpenImage
from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, BlobMissing, DiskFull
from isopod.model.ids import Digest

WASM_PAGE = 65536
MAGIC = b"isopod-image-3\n"
HEAD = struct.Struct("<QQI32s")


def page(byte: int) -> bytes:
    return bytes([byte]) * PAGE


class Shelf:
    """A cache, its blobs, a base image and an image of 128 KiB that differs in places."""

    def __init__(self, folder: Path, limit_bytes: int = 1 << 30) -> None:
        self.folder = folder
        self.blobs = BlobStore(folder / "blobs")
        self.root = folder / "images"
        self.base = folder / "base.image"
        self.base.write_bytes(page(1) + page(2) + page(3) + bytes(WASM_PAGE - 3 * PAGE))
        self.cache = self.again(limit_bytes)

    def again(self, limit_bytes: int = 1 << 30) -> ImageCache:
        """As another process sees it: nothing is verified yet."""
        return ImageCache(self.root, self.blobs, limit_bytes=limit_bytes)

    def memory(self, mark: int = 9) -> bytes:
        # Equal to the base, changed, zeroed, a hole, and pages beyond the base.
        start = page(1) + page(mark) + bytes(PAGE)
        return start + bytes(WASM_PAGE - len(start)) + page(mark) + bytes(WASM_PAGE - PAGE)

    def put(self, mark: int = 9) -> Digest:
        path = self.folder / f"image-{mark}"
        with path.open("wb") as file:
            file.write(self.memory(mark))
        return self.cache.put(path, self.base, 1_000)[0]

    def bytes_used(self) -> int:
        """By whole images on the disk."""
        return sum(file.stat().st_blocks * 512 for file in self.root.glob("[!.]*/image"))

    def image(self, digest: Digest) -> Path:
        return self.root / digest / "image"


def mended(shelf: Shelf, digest: Digest) -> str:
    opened = shelf.again().open(digest, shelf.base)
    opened.close()
    return opened.mended


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def read(opened: OpenImage) -> bytes:
    data = os.pread(opened.fd, opened.size + 1, 0)
    opened.close()
    opened.close()
    return data


def test_an_image_comes_back_byte_for_byte_and_only_its_own_pages_are_stored(shelf):
    path = shelf.folder / "image"
    path.write_bytes(shelf.memory())
    digest, own, blob = shelf.cache.put(path, shelf.base, 1_000)
    assert own == 3 * PAGE  # two that are new, one that is zero now
    assert blob == shelf.blobs.size(digest) < 400
    opened = shelf.cache.open(digest, shelf.base)
    assert (opened.size, opened.clock_ns, opened.mended) == (2 * WASM_PAGE, 1_000, "")
    assert opened.intact()
    assert read(opened) == shelf.memory()


def test_a_mib_of_zeros_takes_no_room_on_disk(shelf):
    path = shelf.folder / "image"
    memory = page(1) + bytes((3 << 20) - 2 * PAGE) + page(7)
    path.write_bytes(memory)
    digest, *_ = shelf.cache.put(path, shelf.base, 0)
    assert read(shelf.cache.open(digest, shelf.base)) == memory
    assert shelf.image(digest).stat().st_blocks * 512 <= 2 << 20


def test_the_same_memory_with_holes_and_without_is_one_image(shelf):
    memory = bytes(5 * WASM_PAGE) + page(7) + bytes(9 * WASM_PAGE - PAGE) + page(8)
    memory += bytes(-len(memory) % WASM_PAGE)
    whole, sparse = shelf.folder / "whole", shelf.folder / "sparse"
    whole.write_bytes(memory)
    with sparse.open("wb") as file:
        file.truncate(len(memory))
        for at in (5 * WASM_PAGE, 14 * WASM_PAGE):
            file.seek(at)
            file.write(memory[at : at + PAGE])
    kept = {}
    for path in (whole, sparse):
        digest, *_ = shelf.cache.put(path, shelf.base, 0)
        assert read(shelf.again().open(digest, shelf.base)) == memory
        kept[path] = json.loads((shelf.root / digest / "entry.json").read_text())
    assert kept[whole] == kept[sparse]
    # The same pages at other places are another memory.
    sparse.write_bytes(bytes(6 * WASM_PAGE) + memory[5 * WASM_PAGE : -WASM_PAGE])
    digest, *_ = shelf.cache.put(sparse, shelf.base, 0)
    shelf.cache.open(digest, shelf.base).close()
    moved = json.loads((shelf.root / digest / "entry.json").read_text())
    assert (moved["size"], moved["sha256"] != kept[whole]["sha256"]) == (len(memory), True)


def test_equal_images_are_one_blob(shelf):
    assert shelf.put() == shelf.put() != shelf.put(8)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda i: os.truncate(i, WASM_PAGE), "it has 65536 bytes, not 131072"),
        (lambda i: os.truncate(i, 0), "it has 0 bytes"),
        (lambda i: os.truncate(i, 1 << 20), "it has 1048576 bytes"),
        (lambda i: flip(i, 0), "another digest"),
        (lambda i: flip(i, PAGE + 7), "another digest"),
        (lambda i: flip(i, 2 * WASM_PAGE - 1), "another digest"),
        (lambda i: i.unlink(), "'image' is missing"),
        (lambda i: (i.parent / "entry.json").unlink(), "'entry.json' is missing"),
        (lambda i: (i.parent / "entry.json").write_bytes(b""), "Expecting value"),
        (lambda i: (i.parent / "entry.json").write_bytes(b"{\xff}"), "decode"),
        (lambda i: (i.parent / "entry.json").write_text("[1]"), "list indices"),
        (lambda i: (i.parent / "entry.json").write_text("{}"), "size"),
        (lambda i: (i.parent / "entry.json").write_text("null"), "subscriptable"),
        (lambda i: edit(i, size=7), "it has 131072 bytes, not 7"),
        (lambda i: edit(i, clock_ns=None), "NoneType"),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
def test_a_damaged_image_is_found_and_made_again_from_its_blob(shelf, damage, why, verified):
    digest = shelf.put()
    shelf.cache.open(digest, shelf.base).close()
    cache = shelf.cache if verified else shelf.again()
    damage(shelf.image(digest))
    opened = cache.open(digest, shelf.base)
    assert why in opened.mended
    assert read(opened) == shelf.memory()
    assert mended(shelf, digest) == ""
    assert [p.name for p in shelf.root.iterdir()] == [digest]


def test_an_entry_with_another_digest_is_no_better_than_a_damaged_image(shelf):
    digest = shelf.put()
    shelf.cache.open(digest, shelf.base).close()
    edit(shelf.image(digest), sha256="0" * 64)
    assert "another digest" in mended(shelf, digest)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def edit(image: Path, **values: object) -> None:
    path = image.parent / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_image_that_is_written_to_while_it_is_open_says_so(shelf):
    digest = shelf.put()
    opened = shelf.cache.open(digest, shelf.base)
    assert opened.intact()
    flip(shelf.image(digest), 0)
    assert not opened.intact()
    other = shelf.put(8)
    opened = shelf.cache.open(other, shelf.base)
    os.truncate(shelf.image(other), 0)
    assert not opened.intact()


def test_a_deleted_image_is_made_again_and_who_holds_it_keeps_it(shelf):
    digest = shelf.put()
    opened = shelf.cache.open(digest, shelf.base)
    shelf.cache.delete(digest)
    assert read(shelf.cache.open(digest, shelf.base)) == shelf.memory()
    assert read(opened) == shelf.memory()


def test_without_its_blob_a_good_image_serves_and_a_damaged_one_is_refused(shelf):
    digest = shelf.put()
    shelf.cache.open(digest, shelf.base).close()
    shelf.blobs.delete(digest)
    assert read(shelf.again().open(digest, shelf.base)) == shelf.memory()
    flip(shelf.image(digest), 0)
    for _ in range(2):
        with pytest.raises(BlobMissing, match=digest):
            shelf.again().open(digest, shelf.base)
    assert list(shelf.root.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda p: flip(p, 60), lambda p: os.truncate(p, 70)])
def test_a_damaged_blob_makes_no_image(shelf, damage):
    digest = shelf.put()
    damage(shelf.blobs.path(digest))
    with pytest.raises(BlobCorrupt, match="digest"):
        shelf.cache.open(digest, shelf.base)
    assert list(shelf.root.iterdir()) == []


def test_a_base_image_that_is_not_the_one_of_the_blob_makes_no_image(shelf):
    digest = shelf.put()
    flip(shelf.base, 5)
    with pytest.raises(BlobCorrupt, match="does not fit the runtime's base image"):
        shelf.cache.open(digest, shelf.base)
    shelf.base.unlink()
    with pytest.raises(BlobCorrupt, match="cannot be made"):
        shelf.cache.open(digest, shelf.base)
    assert list(shelf.root.iterdir()) == []


def hostile(size=2 * WASM_PAGE, pages=1, index=(1,), data=None, sha256=None, magic=MAGIC):
    body = b"".join(struct.pack("<I", number) for number in index) + (
        page(9) if data is None else data
    )
    sha256 = sha256 or hashlib.sha256(struct.pack("<Q", size)).digest()  # of nothing but zeros
    return magic + HEAD.pack(size, 0, pages, sha256) + zstandard.compress(body)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"no image at all",
        MAGIC,
        hostile(magic=b"isopod-image-1\n"),
        hostile()[:-3],
        hostile()[: len(MAGIC) + HEAD.size] + b"no zstd",
        hostile(size=0),
        hostile(size=WASM_PAGE + PAGE),
        hostile(size=1 << 40),
        hostile(size=(1 << 64) - WASM_PAGE),
        hostile(pages=(1 << 32) - 1),
        hostile(pages=33),
        hostile(pages=2),
        hostile(index=(32,)),
        hostile(index=((1 << 32) - 1,)),
        hostile(index=()),
        hostile(data=page(9)[:-1]),
        hostile(data=page(9) * 2),
        hostile(sha256=bytes(32)),
    ],
)
def test_a_hostile_blob_makes_no_image(shelf, blob):
    digest = shelf.blobs.put_bytes(blob)
    with pytest.raises(BlobCorrupt, match=digest):
        shelf.cache.open(digest, shelf.base)
    assert list(shelf.root.iterdir()) == []


def test_a_zstd_bomb_is_not_unpacked(shelf):
    # 4 GiB of zeros behind an index of one page; and a frame that claims a window of 2 GiB.
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    bomb = packer.compress(struct.pack("<I", 1) + page(9))
    zeros = bytes(1 << 24)
    bomb += b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    head = MAGIC + HEAD.pack(2 * WASM_PAGE, 0, 1, bytes(32))
    windowed = struct.pack("<IBB", 0xFD2FB528, 0x00, 0xA8) + b"\x01\x00\x00"
    for body in (bomb, windowed):
        digest = shelf.blobs.put_bytes(head + body)
        script = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from isopod.blobs.images import ImageCache\n"
            "from isopod.blobs.store import BlobStore\n"
            "from isopod.errors import BlobCorrupt\n"
            "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "cache = ImageCache(Path(sys.argv[1]), BlobStore(Path(sys.argv[2])), limit_bytes=1 << 30)\n"
            "try: cache.open(sys.argv[3], Path(sys.argv[4]))\n"
            "except BlobCorrupt: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)\n"
        )
        grown = subprocess.run(
            [sys.executable, "-c", script, str(shelf.root), str(shelf.blobs.root), digest,
             str(shelf.base)],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        assert int(grown.stdout) < 64 << 10  # KiB


def test_the_least_recently_used_go_first_and_the_limit_holds(shelf):
    digests = [shelf.put(mark) for mark in range(10, 20)]
    one = shelf.cache.open(digests[0], shelf.base)
    each = shelf.bytes_used()
    one.close()
    cache = shelf.again(limit_bytes=4 * each)
    for number, digest in enumerate(digests[:4]):
        cache.open(digest, shelf.base).close()
        os.utime(shelf.root / digest, (number, number))
    cache.open(digests[0], shelf.base).close()  # used again
    for digest in digests[4:]:
        cache.open(digest, shelf.base).close()
        assert shelf.bytes_used() <= 4 * each
        os.utime(shelf.root / digest, (time.time() + 5, time.time() + 5))
        assert not (shelf.root / digests[1]).exists()


def test_an_image_that_is_open_is_never_evicted(shelf):
    digests = [shelf.put(mark) for mark in range(10, 16)]
    cache = shelf.again(limit_bytes=1)
    held = cache.open(digests[0], shelf.base)
    for digest in digests[1:]:
        cache.open(digest, shelf.base).close()
        assert (shelf.root / digests[0]).exists()
    held.close()
    cache.open(digests[1], shelf.base).close()
    cache.open(digests[2], shelf.base).close()
    assert not (shelf.root / digests[0]).exists()


_OPENER = """
import os, random, sys
from pathlib import Path
from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
root, blobs, base, want, *digests = sys.argv[1:]
cache = ImageCache(Path(root), BlobStore(Path(blobs)), limit_bytes=1)
marks = dict(zip(digests, map(int, want.split(","))))
for turn in range(150):
    digest = random.choice(digests)
    opened = cache.open(digest, Path(base))
    assert not opened.mended, opened.mended
    data = os.pread(opened.fd, opened.size, 0)
    assert len(data) == opened.size and data[4096] == marks[digest] == data[65536]
    opened.close()
"""


def test_processes_may_make_open_and_evict_the_same_images_at_once(shelf):
    marks = [11, 12, 13]
    digests = [shelf.put(mark) for mark in marks]
    command = [sys.executable, "-c", _OPENER, str(shelf.root), str(shelf.blobs.root),
               str(shelf.base), ",".join(map(str, marks)), *digests]  # fmt: skip
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert not [p for p in shelf.root.iterdir() if p.name.startswith(".")]


_KILLED = """
import sys, time
from pathlib import Path
from isopod.blobs import images
from isopod.blobs.store import BlobStore
root, blobs, base, digest = sys.argv[1:]
cache = images.ImageCache(Path(root), BlobStore(Path(blobs)), limit_bytes=1 << 30)
def stop(*_):
    print("written", flush=True)
    time.sleep(60)
cache._make_room = stop
cache.open(digest, Path(base))
"""


def test_a_process_killed_before_it_published_leaves_nothing_that_is_used(shelf):
    digest = shelf.put()
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(shelf.root), str(shelf.blobs.root), str(shelf.base),
         digest],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = list(shelf.root.iterdir())
    assert len(left) == 1 and left[0].name.startswith(".tmp-")
    assert read(shelf.cache.open(digest, shelf.base)) == shelf.memory()
    assert shelf.bytes_used() == shelf.image(digest).stat().st_blocks * 512
    assert shelf.cache.sweep() == 1
    assert [p.name for p in shelf.root.iterdir()] == [digest]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=False,
        capture_output=True,
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("needs root and mount(2): a full disk was NOT tested")
    try:
        shelf = Shelf(tmp_path)
        big = tmp_path / "big"
        big.write_bytes(os.urandom(16 * WASM_PAGE))
        digest = shelf.cache.put(big, shelf.base, 0)[0]
        cache = ImageCache(small / "images", shelf.blobs, limit_bytes=1 << 30)
        for _ in range(2):
            with pytest.raises(DiskFull, match="images"):
                cache.open(digest, shelf.base)
            assert list((small / "images").iterdir()) == []
        assert read(cache.open(shelf.put(), shelf.base)) == shelf.memory()  # a small one fits
    finally:
        subprocess.run(["umount", str(small)], check=True)
