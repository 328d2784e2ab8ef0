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
import errno
import fcntl
import hashlib
import json
import mmap
import os
import secrets
import shutil
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from isopod.blobs.reading import is_shortage, unreadable
from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, disk_full_is_clear
from isopod.model.ids import Digest

PAGE = 4096
_ZERO = bytes(PAGE)
_MAGIC = b"isopod-image-3\n"
_HEAD = struct.Struct("<QQI32s")  # memory size, guest's clock in ns, pages, its digest
_WASM_PAGE = 65536
_MAX_SIZE = 1 << 30  # more is no image of ours
_MAX_WINDOW = 32 << 20  # bounds what a blob can make its reader allocate
_BATCH = 256  # pages
_LEVEL = 6
_CHUNK_BYTES = 1 << 20
_PIECE = 64 << 10  # that a digest takes or leaves out
_ZEROS = bytes(_PIECE)
_TEMPORARY = ".tmp-"
# Of opening an image: other processes may need its room just then; a file that is damaged again and
# again says that the disk is.
_TRIES, _DAMAGED_TRIES = 50, 4


@dataclass(slots=True)
class OpenImage:
    """An image file, open and locked against removal until `close`. `mended`: why it had to be
    made again, "" when it had not."""

    fd: int
    size: int
    clock_ns: int
    stamp: tuple[int, int, int]
    mended: str = ""

    def intact(self) -> bool:
        """Whether nobody wrote to the file since it was verified. Cheap: asks, does not read."""
        return _stamp(self.fd) == self.stamp

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
        self._verified: dict[Digest, tuple[int, int, int]] = {}
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
            sha256 = _hash(file.fileno())
        own = len(index) // 4
        head = _MAGIC + _HEAD.pack(image.stat().st_size, clock_ns, own, sha256)
        body = zstandard.ZstdCompressor(level=_LEVEL).compress(bytes(index) + bytes(data))
        digest = self._blobs.put_bytes(head + body)
        return digest, own * PAGE, len(head) + len(body)

    def open(self, digest: Digest, base: Path) -> OpenImage:
        """The image, made from its blob if need be, verified once per process and again when it
        was written to.

        Raises BlobMissing or BlobCorrupt when it cannot be had, FilesUnreadable, DiskFull.
        """
        why, damaged = "", 0
        for _ in range(_TRIES):
            try:
                opened = self._open(digest)
            except FileNotFoundError:
                pass
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, OSError) and is_shortage(error):
                    raise unreadable(f"image {digest!r}", error) from error
                why, damaged = str(error), damaged + 1
                self.delete(digest)
                if damaged == _DAMAGED_TRIES:
                    break
            else:
                opened.mended = why
                return opened
            try:
                self._assemble(digest, base)
            except OSError as error:
                if is_shortage(error):
                    raise unreadable(f"image {digest!r}", error) from error
                raise BlobCorrupt(f"image {digest!r} cannot be made: {error}") from error
        raise BlobCorrupt(f"image {digest!r} in {str(self._root)!r} cannot be kept whole: {why}")

    def delete(self, digest: Digest) -> None:
        """Forget the file; the blob stays. Instances mapped from it keep their memory."""
        self._verified.pop(digest, None)
        self._discard(self._root / digest)

    def sweep(self) -> int:
        """Remove what processes that died left behind; call it while nobody writes."""
        left = [p for p in self._root.iterdir() if p.name.startswith(".")]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    # ---------------------------------------------------------------------------------------

    def _open(self, digest: Digest) -> OpenImage:
        folder = self._root / digest
        if not folder.is_dir():
            raise FileNotFoundError(digest)
        try:
            entry = json.loads((folder / "entry.json").read_bytes())
            fd = os.open(folder / "image", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if not folder.is_dir():
                raise
            raise ValueError(f"{Path(error.filename).name!r} is missing") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            there = os.fstat(fd)
            if there.st_nlink == 0:
                raise FileNotFoundError(digest)  # evicted a moment ago
            if there.st_size != entry["size"]:
                raise ValueError(f"it has {there.st_size} bytes, not {entry['size']}")
            stamp = _stamp(fd)
            if self._verified.get(digest) != stamp:
                if _hash(fd).hex() != entry["sha256"]:
                    raise ValueError("its bytes have another digest")
                self._verified[digest] = stamp
            os.utime(folder)  # used now
            return OpenImage(fd, int(entry["size"]), int(entry["clock_ns"]), stamp)
        except BaseException:
            os.close(fd)
            raise

    def _assemble(self, digest: Digest, base: Path) -> None:
        temporary = self._temporary()
        temporary.mkdir(mode=0o700)
        try:
            with disk_full_is_clear(str(self._root)):
                image = temporary / "image"
                entry = self._write(digest, base, image)
                (temporary / "entry.json").write_text(json.dumps(entry))
            self._make_room(image.stat().st_blocks * 512)
            with image.open("rb") as file:
                stamp = _stamp(file.fileno())
            # What is there was put there by another process in the meantime: it is as good.
            with contextlib.suppress(OSError):
                temporary.rename(self._root / digest)
                self._verified[digest] = stamp
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write(self, digest: Digest, base: Path, path: Path) -> dict[str, object]:
        """Write the image of a blob to `path`; what `entry.json` says of it. Trusts nothing in
        the blob: whoever made it may be a tenant's builder."""
        with self._blobs.open_verified(digest).open("rb") as blob, path.open("xb") as file:
            head = blob.read(len(_MAGIC) + _HEAD.size)
            if not head.startswith(_MAGIC) or len(head) < len(_MAGIC) + _HEAD.size:
                raise BlobCorrupt(f"blob {digest!r} is no memory image")
            size, clock_ns, pages, sha256 = _HEAD.unpack_from(head, len(_MAGIC))
            if not 0 < size <= _MAX_SIZE or size % _WASM_PAGE or pages > size // PAGE:
                raise BlobCorrupt(f"blob {digest!r} describes no memory")
            with mmap.mmap(-1, size) as memory:
                try:
                    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
                    with reader.stream_reader(blob) as stream:
                        _fill(memory, stream, pages, base)
                except (zstandard.ZstdError, ValueError) as error:
                    raise BlobCorrupt(f"blob {digest!r} is no memory image: {error}") from error
                if _hash_memory(memory) != sha256:
                    raise BlobCorrupt(
                        f"blob {digest!r} does not fit the runtime's base image {str(base)!r}",
                        hint="remove the runtime's folder and run `isopod runtimes prepare`",
                    )
                _write_in_chunks(memory, file.fileno())
        return {"sha256": sha256.hex(), "size": size, "clock_ns": clock_ns}

    def _temporary(self) -> Path:
        return self._root / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"

    def _discard(self, folder: Path) -> None:
        """At once for everybody else: nobody sees half a folder."""
        trash = self._temporary()
        with contextlib.suppress(OSError):
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

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
            if self._evict(folder):
                excess -= size

    def _evict(self, folder: Path) -> bool:
        """Remove an image unless a process holds it open."""
        try:
            fd = os.open(folder / "image", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Held while it is removed: who comes to open it waits, and then finds it gone.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._discard(folder)
            return True
        finally:
            os.close(fd)


def _stamp(fd: int) -> tuple[int, int, int]:
    there = os.fstat(fd)
    return there.st_ino, there.st_size, there.st_mtime_ns


def _pages(fd: int) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the pages of a sparse file that are not holes."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        start, end = _next_data(fd, at, size)
        start -= start % PAGE
        for offset in range(start, end, PAGE):
            yield offset // PAGE, os.pread(fd, PAGE, offset)
        at = end


def _zeroed(image: int, base: int) -> list[int]:
    """Pages that the base has and the image does not: they are zero in the image."""
    held = {number for number, _ in _pages(image)}
    return [number for number, page in _pages(base) if number not in held and page != _ZERO]


def _numbers(index: bytes, pages: int, size: int) -> list[int]:
    """The pages that a blob holds."""
    numbers = [number for (number,) in struct.iter_unpack("<I", index)]
    if len(numbers) != pages or any((number + 1) * PAGE > size for number in numbers):
        raise ValueError("its index is not of its memory")
    return numbers


def _fill(memory: mmap.mmap, stream: IO[bytes], pages: int, base: Path) -> None:
    """The base image's pages, and over them the blob's own. Raises ValueError."""
    own = _numbers(stream.read(pages * 4), pages, len(memory))
    with base.open("rb") as ground:
        for number, page in _pages(ground.fileno()):
            if (number + 1) * PAGE <= len(memory):
                memory[number * PAGE : (number + 1) * PAGE] = page
    for start in range(0, pages, _BATCH):
        batch = own[start : start + _BATCH]
        data = stream.read(len(batch) * PAGE)
        if len(data) != len(batch) * PAGE:
            raise ValueError("it ends early")
        for position, number in enumerate(batch):
            page = data[position * PAGE : (position + 1) * PAGE]
            memory[number * PAGE : (number + 1) * PAGE] = page
    if stream.read(1):
        raise ValueError("it holds more than it says")


def _write_in_chunks(memory: mmap.mmap, fd: int) -> None:
    """Large writes make large folios in the page cache, where the file system has them, and a
    fault then maps many pages at once: a start and a first request of Flask take 350 faults in
    place of 570. Chunks of zeros are left out."""
    os.ftruncate(fd, len(memory))
    for start in range(0, len(memory), _CHUNK_BYTES):
        chunk = memory[start : start + _CHUNK_BYTES]
        if chunk.count(0) != len(chunk) and os.pwrite(fd, chunk, start) != len(chunk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a short write means


def _hash(fd: int) -> bytes:
    """Of an image file: its size, and what is not zero in it. A hole is not read: it would fill the
    page cache with zeros."""
    size = os.fstat(fd).st_size
    if size == 0:
        raise ValueError("empty")

    def pieces() -> Iterator[tuple[int, bytes]]:
        at = 0
        while at < size:
            start, end = _next_data(fd, at, size)
            # Whole pieces, whatever the file system calls a hole.
            for offset in range(start - start % _PIECE, end, _PIECE):
                # Read, not mapped: what a disk cannot deliver is an error here, and SIGBUS there.
                yield offset, os.pread(fd, _PIECE, offset)
            at = min(size, -(-end // _PIECE) * _PIECE)

    return _hash_pieces(size, pieces())


def _hash_memory(memory: mmap.mmap) -> bytes:
    """The same of an image in memory."""
    size = len(memory)
    return _hash_pieces(size, ((at, memory[at : at + _PIECE]) for at in range(0, size, _PIECE)))


def _hash_pieces(size: int, pieces: Iterable[tuple[int, bytes]]) -> bytes:
    total = hashlib.sha256(size.to_bytes(8, "little"))
    for offset, piece in pieces:
        if piece != _ZEROS[: len(piece)]:
            total.update(offset.to_bytes(8, "little"))
            total.update(piece)
    return total.digest()


def _next_data(fd: int, at: int, size: int) -> tuple[int, int]:
    """Where the next data of a sparse file begins and ends; (size, size): a hole is left."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size, size
    return start, min(size, os.lseek(fd, start, os.SEEK_HOLE))
