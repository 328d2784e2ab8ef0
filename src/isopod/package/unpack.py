"""Open a package that anybody may have made: nothing leaves `dest`, nothing grows without bound.

The archive is read as a stream. Names, types, counts and sizes are checked before anything is
written; only regular files and folders are ever made, so no link can redirect a later write.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import BinaryIO

import zstandard

from isopod.errors import (
    PackageCorrupt,
    PackageTooLarge,
    PackageUnsafe,
    disk_full_is_clear,
)
from isopod.package import PackageLimits

_MAX_NAME_BYTES = 255  # of one component: what ext4, xfs and btrfs take
_MAX_PATH_BYTES = 1024
_WINDOW_BYTES = 1 << 27  # zstd's largest without --long; bounds the decoder's memory
# 512 compressed bytes are at most 16 MiB of output: a block takes 4 bytes and gives 128 KiB.
_COMPRESSED_CHUNK_BYTES = 512
_HEADERS_BYTES_PER_FILE = 4096  # tar header, pax header and padding
_COPY_BYTES = 1 << 18


def unpack(source: Path | BinaryIO, dest: Path, *, limits: PackageLimits | None = None) -> int:
    """Extract `source` into `dest`, a new or empty folder; the number of files.

    Raises `PackageUnsafe` (names and types that no app needs), `PackageTooLarge`,
    `PackageCorrupt` (damaged, truncated or no package at all), `DiskFull`. After an error `dest`
    holds a part of the files; its owner removes it.
    """
    limits = limits or PackageLimits()
    dest.mkdir(mode=0o755, parents=True, exist_ok=True)
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _unpack(file, dest, limits)
    return _unpack(source, dest, limits)


def _unpack(source: BinaryIO, dest: Path, limits: PackageLimits) -> int:
    stream = _BoundedZstd(source, limits)
    extractor = _Extractor(dest, limits)
    try:
        with (
            disk_full_is_clear(str(dest)),
            tarfile.open(fileobj=stream, mode="r|", bufsize=_COPY_BYTES) as tar,  # type: ignore[call-overload]
        ):
            for member in tar:
                extractor.add(tar, member)
        stream.drain()  # to the checksum
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise PackageCorrupt(f"the package is damaged: {error}") from error
    except (ValueError, OverflowError, LookupError, MemoryError, RecursionError) as error:
        # What tarfile raises for headers whose numbers make no sense.
        raise PackageCorrupt(f"the package is damaged: {type(error).__name__}") from error
    return extractor.files


class _Extractor:
    def __init__(self, dest: Path, limits: PackageLimits) -> None:
        self._dest = dest
        self._limits = limits
        self._files: set[tuple[str, ...]] = set()
        self._folders: set[tuple[str, ...]] = {()}
        self._bytes = 0

    @property
    def files(self) -> int:
        return len(self._files)

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _safe_parts(member.name)
        if member.isdir():
            if parts in self._files:
                raise PackageUnsafe(f"the package holds {member.name!r} twice")
            self._make_folder(parts, member.name)
            return
        if not member.isreg() or member.issparse():
            raise PackageUnsafe(
                f"the package holds {member.name!r}, which is {_kind(member)}",
                hint="only regular files and folders can be deployed",
            )
        if not parts or parts in self._files or parts in self._folders:
            raise PackageUnsafe(f"the package holds {member.name!r} twice")
        if member.size < 0:
            raise PackageCorrupt(f"the package is damaged: {member.name!r} has a negative size")
        self._bytes += member.size
        if self._bytes > self._limits.max_bytes:
            raise _too_many_bytes(self._limits)
        self._make_folder(parts[:-1], member.name)
        self._files.add(parts)
        self._check_count()
        self._write(tar, member, self._dest.joinpath(*parts))

    def _make_folder(self, parts: tuple[str, ...], name: str) -> None:
        for depth in range(1, len(parts) + 1):
            folder = parts[:depth]
            if folder in self._folders:
                continue
            if folder in self._files:
                raise PackageUnsafe(f"the package holds {name!r} below a file")
            self._folders.add(folder)
            self._check_count()
            self._dest.joinpath(*folder).mkdir(mode=0o755)

    def _check_count(self) -> None:
        if len(self._files) + len(self._folders) - 1 > self._limits.max_files:
            raise PackageTooLarge(
                f"the package holds more than {self._limits.max_files:,} files and folders",
                details={"max_files": self._limits.max_files},
            )

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        source = tar.extractfile(member)
        assert source is not None
        mode = 0o755 if member.mode & 0o100 else 0o644
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        left = member.size
        with os.fdopen(number, "wb") as out:
            while left > 0:
                chunk = source.read(min(left, _COPY_BYTES))
                if not chunk:
                    raise PackageCorrupt(f"the package is damaged: {member.name!r} ends early")
                out.write(chunk)
                left -= len(chunk)
            os.fchmod(out.fileno(), mode)  # whatever the umask


class _BoundedZstd:
    """A file of the decompressed bytes that stops at a limit and notices a truncated end."""

    def __init__(self, source: BinaryIO, limits: PackageLimits) -> None:
        self._source = source
        self._limits = limits
        self._allowed = limits.max_bytes + limits.max_files * _HEADERS_BYTES_PER_FILE + (1 << 20)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        self._frame = decompressor.decompressobj()
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and self._more():
            pass
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def drain(self) -> None:
        """Read to the end, so that the checksum of all the bytes has been compared."""
        self._buffer.clear()
        while self._more():
            self._buffer.clear()

    def _more(self) -> bool:
        if self._frame.eof:
            if self._frame.unused_data or self._source.read(1):
                raise PackageCorrupt("the package is damaged: there are bytes after its end")
            return False
        chunk = self._source.read(_COMPRESSED_CHUNK_BYTES)
        if not chunk:
            raise PackageCorrupt("the package is damaged: it ends early")
        data = self._frame.decompress(chunk)
        self._allowed -= len(data)
        if self._allowed < 0:
            raise _too_many_bytes(self._limits)
        self._buffer += data
        return True


def _safe_parts(name: str) -> tuple[str, ...]:
    shown = name if len(name) <= 120 else name[:117] + "..."
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise PackageUnsafe(f"the package holds {shown!r}, a name with a control character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise PackageUnsafe(f"the package holds {shown!r}, a name that is not UTF-8") from None
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise PackageUnsafe(f"the package holds {shown!r}, which lies outside of the app's folder")
    if size > _MAX_PATH_BYTES or any(len(p.encode()) > _MAX_NAME_BYTES for p in parts):
        raise PackageUnsafe(f"the package holds {shown!r}, a name that is too long")
    return parts


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym():
        return f"a symbolic link to {member.linkname!r}"
    if member.islnk():
        return f"a hard link to {member.linkname!r}"
    if member.issparse():
        return "a sparse file"
    return "a device or pipe" if member.isdev() else "of an unknown type"


def _too_many_bytes(limits: PackageLimits) -> PackageTooLarge:
    return PackageTooLarge(
        f"the package unpacks to more than {limits.max_mib:,} MiB",
        details={"max_mib": limits.max_mib},
    )
