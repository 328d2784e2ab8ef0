"""Blobs in a folder: `root/ab/abcdef...`, one file each, named by the sha256 of its bytes.

A blob is written under a temporary name, fsynced and renamed, so a power cut leaves the whole
blob or none. Bytes that come back are hashed again by `open_verified`: a disk that changed
them is reported, never served. Not here: who still needs a blob (that is state's to know).
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from isopod.blobs.reading import is_shortage, unreadable
from isopod.errors import BlobCorrupt, BlobMissing, UsageError, disk_full_is_clear
from isopod.model.ids import Digest
from isopod.owned_file import sync

_CHUNK_BYTES = 1 << 20
_TEMPORARY = ".tmp-"


class BlobStore:
    """Safe for several processes at once: equal bytes are the same file, whoever wins."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self._root

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._root / digest[:2] / digest

    def temporary(self) -> Path:
        """A name on the blobs' own disk to write a future blob to; hand it to `put_file`."""
        return self._root / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"

    def put_bytes(self, data: bytes) -> Digest:
        temporary = self.temporary()
        try:
            with disk_full_is_clear(str(self._root)):
                temporary.write_bytes(data)
            return self.put_file(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def put_file(self, source: Path) -> Digest:
        """Move `source` into the store. It is gone afterwards, also when this fails."""
        try:
            with disk_full_is_clear(str(self._root)):
                digest = self._hash_and_sync(source)
                self._publish(source, digest)
            return digest
        finally:
            source.unlink(missing_ok=True)

    def has(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise self._missing(digest) from None

    def open_verified(self, digest: Digest) -> Path:
        """The path of the blob, after its bytes were found to be what their name says.

        Raises `BlobMissing` or `BlobCorrupt`, naming the digest and the path; `FilesUnreadable`.
        """
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                found = sha256_of(file)
        except FileNotFoundError:
            raise self._missing(digest) from None
        except OSError as error:
            if is_shortage(error):
                raise unreadable(f"blob {digest!r} at {str(path)!r}", error) from error
            # Also of a disk that fails: deploying again writes the blob anew.
            raise self._corrupt(digest, f"cannot be read ({error.strerror})") from error
        if found != digest:
            raise self._corrupt(digest, f"holds bytes with the digest {found!r}")
        return path

    def touch(self, digest: Digest, *, now: float) -> bool:
        """Make the blob as young as one that is written now. False: it is not there."""
        try:
            os.utime(self.path(digest), (now, now))
        except FileNotFoundError:
            return False
        return True

    def delete(self, digest: Digest) -> None:
        """Deleting what is not there is no error."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[Digest]:
        for folder in sorted(self._root.iterdir()):
            if len(folder.name) == 2 and folder.is_dir():
                for file in sorted(folder.iterdir()):
                    with suppress(UsageError):
                        yield Digest.parse(file.name)

    def sweep(self) -> int:
        """Remove what writers that died left behind; call it while nobody writes."""
        left = list(self._root.glob(f"{_TEMPORARY}*"))
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)

    def _hash_and_sync(self, source: Path) -> Digest:
        with source.open("rb") as file:
            digest = sha256_of(file)
            os.fsync(file.fileno())
        return digest

    def _publish(self, source: Path, digest: Digest) -> None:
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        source.chmod(0o600)
        try:
            # Always, also over an equal blob: that repairs one which the disk has damaged.
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            nearby = self.temporary()
            try:
                with source.open("rb") as old, nearby.open("xb") as new:
                    shutil.copyfileobj(old, new, _CHUNK_BYTES)
                    new.flush()
                    os.fsync(new.fileno())
                nearby.chmod(0o600)
                nearby.replace(target)
            finally:
                nearby.unlink(missing_ok=True)
        sync(target.parent)
        sync(self._root)

    def _missing(self, digest: Digest) -> BlobMissing:
        path = str(self.path(digest))
        return BlobMissing(
            f"blob {digest!r} is missing at {path!r}", details={"digest": digest, "path": path}
        )

    def _corrupt(self, digest: Digest, why: str) -> BlobCorrupt:
        path = str(self.path(digest))
        return BlobCorrupt(
            f"blob {digest!r} at {path!r} {why}", details={"digest": digest, "path": path}
        )


def sha256_of(file: BufferedReader) -> Digest:
    """The digest of what is left to read in `file`."""
    return Digest(hashlib.file_digest(file, "sha256").hexdigest())
