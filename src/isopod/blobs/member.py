"""One file of a tree, read from the tree's blob: the bytes that the digest stands for, whatever
became of the extracted copy."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import IO, cast

import zstandard

from isopod.blobs.store import BlobStore
from isopod.errors import BlobCorrupt, BlobMissing
from isopod.model.ids import Digest

_CHUNK_BYTES = 1 << 20


def open_blob(blobs: BlobStore, digest: Digest) -> int:
    """Its descriptor. No link is followed, in whatever a builder left there; what is in it is not
    looked at. Raises BlobMissing and BlobCorrupt."""
    path = blobs.path(digest)
    details = {"digest": digest, "path": str(path)}
    step = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(blobs.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.relative_to(blobs.root).parent.parts:
            below = os.open(name, step | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        fd = os.open(path.name, step | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        raise BlobMissing(f"blob {digest!r} is missing at {str(path)!r}", details=details) from None
    except OSError as error:
        raise BlobCorrupt(
            f"blob {digest!r} cannot be read: {(error.strerror or '').lower()}", details=details
        ) from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BlobCorrupt(f"blob {digest!r} is no file", details=details)
    return fd


def read_member(fd: int, digest: Digest, name: str, *, most: int) -> bytes | None:
    """The first `most` bytes of the file `name`; None: the tree has no such file. Raises
    BlobCorrupt: nothing is given of a blob that is not all that its digest says."""
    hashed = _Hashed(fd)
    found: bytes | None = None
    try:
        with (
            zstandard.ZstdDecompressor().stream_reader(
                cast(IO[bytes], hashed), closefd=False
            ) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                if member.name == name and member.isreg():
                    source = tar.extractfile(member)
                    found = source.read(most) if source is not None else None
                    break
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise BlobCorrupt(f"blob {digest!r} is no tree: {error}") from error
    if hashed.digest() != digest:
        raise BlobCorrupt(f"blob {digest!r} holds other bytes", details={"digest": digest})
    return found


class _Hashed(io.RawIOBase):
    """A file, and the digest of all that was read of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sum = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = os.read(self._fd, size if size >= 0 else _CHUNK_BYTES)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        """Of the whole file."""
        while self.read():
            pass
        return self._sum.hexdigest()
