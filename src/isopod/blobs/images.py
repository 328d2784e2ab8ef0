"""Memory images: small blobs, and files on the node that guests are mapped from.

A blob holds only the pages that differ from the runtime's base image (the memory of an instance
that has not run yet), compressed. The file is the whole image with holes, `root/<digest>/image`,
with `entry.json` beside it (its sha256, its size, the guest's clock). It can always be made again
from the blob, so it is checked once per process before its first use, and never fsynced.

The files together stay below a limit: the least recently used go first, never one that a process
holds open (each holder has a shared lock on it).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, disk_full_is_clear
from isopod.model.ids import Digest

PAGE = 4096
_ZERO = bytes(PAGE)
_MAGIC = b"isopod-image-1\n"
_HEAD = struct.Struct("<QQI")  # memory size, guest's clock in ns, pages
_LEVEL = 6
_CHUNK_BYTES = 1 << 20
_TEMPORARY = ".tmp-"


@dataclass(slots=True)
class OpenImage:
    """An image file, open and locked against removal until `close`."""

    fd: int
    size: int
    clock_ns: int

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ImageCache:
    """Safe for several processes: an image appears by one rename."""

    def __init__(self, root: Path, blobs: BlobStore, *, limit_bytes: int) -> None:
        self._root = root
        self._blobs = blobs
        self._limit = limit_bytes
        self._verified: set[Digest] = set()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, image: Path, base: Path, clock_ns: int) -> tuple[Digest, int, int]:
        """Store an image file as a blob. Gives its digest, its own pages' bytes and the blob's
        size. Raises DiskFull."""
        with image.open("rb") as file, base.open("rb") as ground:
            index, data = bytearray(), bytearray()
            for number, page in _pages(file.fileno()):
                ground.seek(number * PAGE)
                if ground.read(PAGE).ljust(PAGE, b"\0") != page:
                    index += number.to_bytes(4, "little")
                    data += page
            for number in _zeroed(file.fileno(), ground.fileno()):
                index += number.to_bytes(4, "little")
                data += _ZERO
        own = len(index) // 4
        head = _MAGIC + _HEAD.pack(image.stat().st_size, clock_ns, own)
        body = zstandard.ZstdCompressor(level=_LEVEL).compress(bytes(index) + bytes(data))
        digest = self._blobs.put_bytes(head + body)
        return digest, own * PAGE, len(head) + len(body)

    def open(self, digest: Digest, base: Path) -> OpenImage:
        """The image, made from its blob if need be, verified once per process.

        Raises BlobMissing or BlobCorrupt when it cannot be had, DiskFull.
        """
        for _ in range(3):
            try:
                return self._open(digest)
            except (OSError, ValueError, KeyError):
                self._assemble(digest, base)
        raise BlobCorrupt(f"image {digest!r} in {str(self._root)!r} cannot be kept whole")

    def bytes_used(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def delete(self, digest: Digest) -> None:
        """Forget the file; the blob stays. Instances mapped from it keep their memory."""
        self._verified.discard(digest)
        shutil.rmtree(self._root / digest, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what processes that died left behind; call it while nobody writes."""
        left = [p for p in self._root.iterdir() if p.name.startswith(".")]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    # ---------------------------------------------------------------------------------------

    def _open(self, digest: Digest) -> OpenImage:
        folder = self._root / digest
        entry = json.loads((folder / "entry.json").read_bytes())
        fd = os.open(folder / "image", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_size != entry["size"]:
                raise ValueError("wrong size")
            if digest not in self._verified:
                if _hash(fd) != entry["sha256"]:
                    self.delete(digest)
                    raise ValueError("damaged")
                self._verified.add(digest)
            os.utime(folder)  # used now
            return OpenImage(fd, int(entry["size"]), int(entry["clock_ns"]))
        except BaseException:
            os.close(fd)
            raise

    def _assemble(self, digest: Digest, base: Path) -> None:
        size, clock_ns, index, data = self._read_blob(digest)
        temporary = self._root / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        temporary.mkdir(mode=0o700)
        try:
            with disk_full_is_clear(str(self._root)):
                image = temporary / "image"
                _write(image, base, size, index, data)
                with image.open("rb") as file:
                    sha256 = _hash(file.fileno())
                entry = {"sha256": sha256, "size": size, "clock_ns": clock_ns}
                (temporary / "entry.json").write_text(json.dumps(entry))
            self._make_room(image.stat().st_blocks * 512)
            shutil.rmtree(self._root / digest, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process was first
                temporary.rename(self._root / digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _read_blob(self, digest: Digest) -> tuple[int, int, bytes, bytes]:
        raw = self._blobs.open_verified(digest).read_bytes()
        start = len(_MAGIC) + _HEAD.size
        if not raw.startswith(_MAGIC) or len(raw) < start:
            raise BlobCorrupt(f"blob {digest!r} is no memory image")
        size, clock_ns, pages = _HEAD.unpack_from(raw, len(_MAGIC))
        if size % PAGE or pages > size // PAGE:
            raise BlobCorrupt(f"blob {digest!r} is no memory image")
        body = zstandard.ZstdDecompressor().decompress(
            raw[start:], max_output_size=pages * (PAGE + 4)
        )
        return size, clock_ns, body[: pages * 4], body[pages * 4 :]

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes on disk, folder), oldest first."""
        found = []
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):
                if not folder.name.startswith("."):
                    size = (folder / "image").stat().st_blocks * 512
                    found.append((folder.stat().st_mtime, size, folder))
        return sorted(found)

    def _make_room(self, need_bytes: int) -> None:
        entries = self._entries()
        excess = sum(size for _, size, _ in entries) + need_bytes - self._limit
        for _, size, folder in entries:
            if excess <= 0:
                return
            if _unused(folder / "image"):
                shutil.rmtree(folder, ignore_errors=True)
                excess -= size


def _unused(path: Path) -> bool:
    """Whether no process holds the image open."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _pages(fd: int) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the pages of a sparse file that are not holes."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return  # only a hole is left
        end = os.lseek(fd, start, os.SEEK_HOLE)
        start -= start % PAGE
        for offset in range(start, min(end, size), PAGE):
            yield offset // PAGE, os.pread(fd, PAGE, offset)
        at = end


def _zeroed(image: int, base: int) -> list[int]:
    """Pages that the base has and the image does not: they are zero in the image."""
    held = {number for number, _ in _pages(image)}
    return [number for number, page in _pages(base) if number not in held and page != _ZERO]


def _write(path: Path, base: Path, size: int, index: bytes, data: bytes) -> None:
    with path.open("xb") as file, base.open("rb") as ground:
        file.truncate(size)
        own = {int.from_bytes(index[at : at + 4], "little") for at in range(0, len(index), 4)}
        for number, page in _pages(ground.fileno()):
            if number not in own and number * PAGE < size:
                os.pwrite(file.fileno(), page, number * PAGE)
        for position, at in enumerate(range(0, len(index), 4)):
            number = int.from_bytes(index[at : at + 4], "little")
            page = data[position * PAGE : (position + 1) * PAGE]
            if (number + 1) * PAGE > size or len(page) != PAGE:
                raise BlobCorrupt("a memory image names a page outside itself")
            if page != _ZERO:
                os.pwrite(file.fileno(), page, number * PAGE)


def _hash(fd: int) -> str:
    size = os.fstat(fd).st_size
    if size == 0:
        raise ValueError("empty")
    # Read, not mapped: a disk that cannot deliver a page is an error here, and SIGBUS there.
    total = hashlib.sha256()
    for offset in range(0, size, _CHUNK_BYTES):
        total.update(os.pread(fd, _CHUNK_BYTES, offset))
    return total.hexdigest()
