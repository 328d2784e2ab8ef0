"""Folders as blobs, and their extracted copies that guests mount.

A tree's digest is that of its blob: a zstd tar whose bytes depend on names, contents and the
executable bit only. The extracted copy is `root/<digest>/tree` with `files.json` beside it; the
copy can always be made again from the blob, so it is checked but never fsynced.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import zstandard

from isopod.blobs.reading import is_damage, unreadable
from isopod.blobs.store import BlobStore, sha256_of
from isopod.errors import BlobCorrupt, UsageError, disk_full_is_clear
from isopod.model.ids import Digest

_TEMPORARY = ".tmp-"
_LEVEL = 6  # bytecode of Flask: 25 ms; higher levels save little


class TreeCache:
    """Extracted trees. Safe for several processes: a tree appears by one rename."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs
        self._verified: set[Digest] = set()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the extracted tree is, or would be."""
        return self._root / digest / "tree"

    def make(self, folder: Path) -> Digest:
        """Store `folder` as a blob and publish its extracted copy. `folder` stays as it is.

        Only regular files are kept. Raises `DiskFull`.
        """
        temporary = self._blobs.temporary()
        try:
            with disk_full_is_clear(str(temporary.parent)):
                _write_tar(folder, temporary)
            digest = self._blobs.put_file(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        self.ensure(digest)
        return digest

    def ready(self, digest: Digest) -> Path | None:
        """The tree's folder if this process has verified it already and nobody has removed it: no
        file is read."""
        path = self.path(digest)
        return path if digest in self._verified and path.is_dir() else None

    def ensure(self, digest: Digest) -> Path:
        """The tree's folder, extracted if need be, and verified once per process.

        Raises `BlobMissing` or `BlobCorrupt` where the tree has to be made from its blob and
        that is not sound; `FilesUnreadable`, `DiskFull`.
        """
        path = self.path(digest)
        if digest in self._verified and path.is_dir():
            return path
        if not self._is_sound(digest):
            self._extract(digest)
        self._verified.add(digest)
        return path

    def doubt(self, digest: Digest) -> None:
        """Verify it again at its next use: somebody saw that it is not whole."""
        self._verified.discard(digest)

    def delete(self, digest: Digest) -> None:
        """Remove the extracted copy only; deleting what is not there is no error."""
        self._verified.discard(digest)
        self._retire(self._root / digest)

    def digests(self) -> Iterator[Digest]:
        for folder in sorted(self._root.iterdir()):
            try:
                yield Digest.parse(folder.name)
            except UsageError:
                continue

    def sweep(self) -> int:
        """Remove what processes that died left behind; call it while nobody writes."""
        left = [p for p in self._root.iterdir() if p.name.startswith(".")]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    def temporary(self) -> Path:
        """A new, empty folder on the trees' disk; `sweep` removes it if its owner does not."""
        folder = self._root / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        return folder

    def _is_sound(self, digest: Digest) -> bool:
        """Raises FilesUnreadable when that cannot be told just now."""
        base = self._root / digest
        try:
            listed = json.loads((base / "files.json").read_bytes())
            found = {}
            if not (base / "tree").is_dir():
                return False
            for path in _files_of(base / "tree"):
                name = path.relative_to(base / "tree").as_posix()
                size, sha256 = listed[name]
                if path.stat().st_size != size:
                    return False
                with path.open("rb") as file:
                    found[name] = [size, sha256_of(file)]
                if found[name][1] != sha256:
                    return False
        except OSError as error:
            if is_damage(error):
                return False
            raise unreadable(f"tree {digest!r}", error) from error
        except (ValueError, KeyError, TypeError):
            return False
        return bool(found == listed)

    def _extract(self, digest: Digest) -> None:
        blob = self._blobs.open_verified(digest)
        temporary = self.temporary()
        try:
            with disk_full_is_clear(str(self._root)):
                listed = _read_tar(blob, temporary / "tree", digest)
                (temporary / "files.json").write_text(json.dumps(listed, sort_keys=True))
            self._publish(temporary, digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path, digest: Digest) -> None:
        target = self._root / digest
        for _ in range(10):
            try:
                temporary.rename(target)
                return
            except OSError:
                # Another process published it, or what is there is damaged.
                if self._is_sound(digest):
                    return
                self._retire(target)
        raise BlobCorrupt(f"tree {digest!r} at {str(target)!r} is damaged and cannot be replaced")

    def _retire(self, folder: Path) -> None:
        old = self._root / f"{_TEMPORARY}old-{secrets.token_hex(8)}"
        try:
            folder.rename(old)
        except FileNotFoundError:
            return
        shutil.rmtree(old, ignore_errors=True)


def _files_of(folder: Path) -> list[Path]:
    """Every regular file, sorted by its path's bytes; links are not followed. Raises OSError: a
    folder that cannot be listed would be one without files."""

    def failed(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for base, _, names in os.walk(folder, onerror=failed):
        paths = (Path(base, name) for name in names)
        files += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(files, key=os.fsencode)


def _write_tar(folder: Path, target: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with (
        target.open("xb") as out,
        compressor.stream_writer(out, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _files_of(folder):
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = status.st_size
                member.mode = 0o755 if status.st_mode & 0o100 else 0o644
                tar.addfile(member, file)


def _read_tar(blob: Path, target: Path, digest: Digest) -> dict[str, Any]:
    """Extract what `_write_tar` wrote. The blob's digest was checked, so its shape is ours;
    a blob of another shape is refused all the same."""
    listed: dict[str, Any] = {}
    target.mkdir(mode=0o755, parents=True)
    try:
        with (
            blob.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                name = PurePosixPath(member.name)
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or name.is_absolute() or ".." in name.parts:
                    raise BlobCorrupt(f"blob {digest!r} is no tree: it holds {member.name!r}")
                path = target / name
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                listed[name.as_posix()] = _copy(source, path, member.mode)
    except (tarfile.TarError, zstandard.ZstdError) as error:
        raise BlobCorrupt(f"blob {digest!r} is no tree: {error}") from error
    return listed


def _copy(source: Any, path: Path, mode: int) -> list[Any]:
    sha256 = hashlib.sha256()
    size = 0
    out: BinaryIO
    with path.open("xb") as out:
        while chunk := source.read(1 << 20):
            sha256.update(chunk)
            size += len(chunk)
            out.write(chunk)
        os.fchmod(out.fileno(), 0o755 if mode & 0o100 else 0o644)
    return [size, sha256.hexdigest()]
