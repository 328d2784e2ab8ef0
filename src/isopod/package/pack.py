"""Pack a folder: equal files give equal bytes, on every machine and on every day.

Names, contents and the executable bit count; times, owners and empty folders do not. A link is
packed as what it points to when that lies inside the folder, and refused when it does not.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from isopod.errors import (
    FolderEmpty,
    FolderNotFound,
    PackageCorrupt,
    PackageTooLarge,
    PackageUnsafe,
    disk_full_is_clear,
)
from isopod.model.ids import Digest
from isopod.package import PackageLimits
from isopod.package.ignore import IgnoreRules

_LEVEL = 9

# Called with (files packed, files in all) after each file.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Packed:
    """A package that was written: its blob's digest, its bytes, and the files in it."""

    digest: Digest
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str  # from the folder's root, with "/"
    path: Path
    size: int


def pack(
    folder: Path,
    out: BinaryIO | Path,
    *,
    progress: Progress | None = None,
    limits: PackageLimits | None = None,
) -> Packed:
    """Write the package of `folder` to `out`.

    Raises `FolderNotFound`, `FolderEmpty`, `PackageTooLarge`, `PackageUnsafe` (a link out of the
    folder, a name that is not UTF-8, an unreadable file), `PackageCorrupt` (a file changed
    meanwhile), `DiskFull`.
    """
    entries = collect(folder, limits=limits or PackageLimits())
    with ExitStack() as stack:
        stack.enter_context(disk_full_is_clear(str(out) if isinstance(out, Path) else "package"))
        file = stack.enter_context(out.open("wb")) if isinstance(out, Path) else out
        sink = _HashingSink(file)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(sink, closefd=False) as stream,  # type: ignore[arg-type]
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for number, entry in enumerate(entries, 1):
                _add(tar, entry)
                if progress is not None:
                    progress(number, len(entries))
    return Packed(Digest(sink.sha256.hexdigest()), sink.size, len(entries))


def collect(folder: Path, *, limits: PackageLimits) -> list[_Entry]:
    """The files to pack, sorted by name. Raises as `pack` does."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise FolderNotFound(f"folder {str(folder)!r} {what}", hint="name the folder of the app")
    root = folder.resolve()
    entries: list[_Entry] = []
    total = 0
    for entry in _walk(root, root, "", IgnoreRules(), (root,)):
        total += entry.size
        entries.append(entry)
        if len(entries) > limits.max_files:
            raise _too_large(f"holds more than {limits.max_files:,} files", entries)
        if total > limits.max_bytes:
            raise _too_large(f"holds more than {limits.max_mib:,} MiB", entries)
    if not entries:
        why = "is empty" if not any(folder.iterdir()) else "holds no file that is not ignored"
        raise FolderEmpty(
            f"folder {str(folder)!r} {why}",
            hint="deploy a folder that holds the app's sources, for example an app.py",
        )
    return sorted(entries, key=lambda entry: entry.name.encode())


def _walk(
    root: Path, folder: Path, relative: str, rules: IgnoreRules, above: tuple[Path, ...]
) -> Iterator[_Entry]:
    """`above` are the real paths of the folders that we are in: a link to one is a loop."""
    rules = rules.enter(folder, relative)
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except PermissionError as error:
        raise _unreadable(relative or ".", error) from error
    for child in children:
        name = f"{relative}/{child.name}" if relative else child.name
        path = Path(child.path)
        is_folder = path.is_dir()  # follows links
        if rules.leaves_out(name, is_folder=is_folder):
            continue
        _check_name(name)
        if child.is_symlink():
            target = _inside(root, path, name)
            if target is None:
                continue
            path = target
        if is_folder:
            real = path.resolve()
            if real in above:
                raise PackageUnsafe(
                    f"link {name!r} leads back to a folder that holds it",
                    hint="remove the link, or list it in .isopodignore",
                )
            if not (path / "pyvenv.cfg").is_file():  # a virtual environment by another name
                yield from _walk(root, path, name, rules, (*above, real))
        elif path.is_file():  # sockets, pipes and devices are no part of an app
            yield _Entry(name, path, path.stat().st_size)


def _inside(root: Path, link: Path, name: str) -> Path | None:
    """What `link` points to, None if nothing is there. Raises if it lies outside of `root`."""
    try:
        target = link.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return None
    if not target.is_relative_to(root):
        raise PackageUnsafe(
            f"link {name!r} points out of the folder, to {str(target)!r}",
            hint="copy what it points to into the folder, or list the link in .isopodignore",
        )
    return target if target.exists() else None


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PackageUnsafe(f"the file name {name!r} is not UTF-8", hint="rename it") from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise PackageUnsafe(f"the file name {name!r} holds a control character", hint="rename it")


def _add(tar: tarfile.TarFile, entry: _Entry) -> None:
    try:
        file = entry.path.open("rb")
    except OSError as error:
        raise _unreadable(entry.name, error) from error
    with file:
        status = os.fstat(file.fileno())
        member = tarfile.TarInfo(entry.name)
        member.size = entry.size
        member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        changed = status.st_size != entry.size
        try:
            if not changed:
                tar.addfile(member, file)
        except OSError as error:
            if error.errno is not None:
                raise
            changed = True  # tarfile says so without a number: the file ended early
        if changed:
            raise PackageCorrupt(
                f"file {entry.name!r} changed while it was packed", hint="deploy again"
            )


def _unreadable(name: str, error: OSError) -> PackageUnsafe:
    return PackageUnsafe(
        f"cannot read {name!r}: {error.strerror}",
        hint="make it readable, or list it in .isopodignore if the app does not need it",
    )


def _too_large(why: str, entries: list[_Entry]) -> PackageTooLarge:
    """Names the folders at the top that hold the most, for .isopodignore."""
    sizes: dict[str, list[int]] = {}
    for entry in entries:
        count = sizes.setdefault(entry.name.partition("/")[0], [0, 0])
        count[0] += entry.size
        count[1] += 1
    largest = sorted(sizes.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))[:5]
    shown = ", ".join(f"{n!r} ({b / 2**20:.1f} MiB, {c:,} files)" for n, (b, c) in largest)
    return PackageTooLarge(
        f"the folder {why}; most of it so far is in {shown}",
        details={"largest": [{"name": n, "bytes": b, "files": c} for n, (b, c) in largest]},
    )


class _HashingSink:
    """Passes on what it is given, and counts and hashes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
