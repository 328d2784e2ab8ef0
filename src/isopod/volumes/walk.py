"""Folders that a guest wrote, read by us: never through a link, never deeper than is sane.

Every step is one name, opened relative to the folder above it: a guest that put a link in the place
of a folder is told apart from one that did not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from isopod.errors import ArchiveInvalid, PathNotFound

MAX_DEPTH = 128
MAX_ENTRIES = 1_000_000
_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """`folder` is an open descriptor of the folder that it is in, until the next one is asked for.
    `path`: relative to where the walk began."""

    path: str
    name: str
    folder: int
    stat: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.stat.st_mode)

    def open(self) -> int:
        """A file, for reading."""
        return os.open(self.name, NO_LINK, dir_fd=self.folder)

    def target(self) -> str:
        return os.readlink(self.name, dir_fd=self.folder)


def parts_of(path: str) -> list[str]:
    """The names of a path from the volume's root. ArchiveInvalid."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or "\0" in path or len(os.fsencode(path)) > 4096:
        raise ArchiveInvalid(f"path {path[:200]!r} leads out of the volume, or is too long")
    if len(names) > MAX_DEPTH:
        raise ArchiveInvalid(f"path {path[:200]!r} has more than {MAX_DEPTH} folders")
    return names


def open_folder(root: int, names: list[str], *, make: bool = False) -> int:
    """A descriptor of the folder at `names` below `root`. PathNotFound when there is none, or a
    link is on the way."""
    here = os.dup(root)
    for name in names:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
            deeper = os.open(name, FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            shown = "/".join(names)[:200]
            raise PathNotFound(f"the volume has no folder {shown!r}") from None
        finally:
            os.close(here)
        here = deeper
    return here


def walk(root: int) -> Iterator[Entry]:
    """Everything below the folder `root`, folders before what is in them. ArchiveInvalid when it
    is deeper or more than can be copied."""
    count = 0
    # Each level: its descriptor, its path, the names that are left.
    levels = [(os.dup(root), "", _names(root))]
    try:
        while levels:
            folder, prefix, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(levels.pop()[0])
                continue
            count += 1
            if count > MAX_ENTRIES:
                raise ArchiveInvalid(f"there are more than {MAX_ENTRIES:,} files and folders")
            try:
                entry = Entry(
                    f"{prefix}{name}",
                    name,
                    folder,
                    os.stat(name, dir_fd=folder, follow_symlinks=False),
                )
            except FileNotFoundError:
                continue
            yield entry
            if entry.is_folder:
                if len(levels) >= MAX_DEPTH:
                    raise ArchiveInvalid(
                        f"{entry.path[:200]!r} has more than {MAX_DEPTH} folders above it"
                    )
                deeper = os.open(name, FOLDER, dir_fd=folder)
                levels.append((deeper, f"{entry.path}/", _names(deeper)))
    finally:
        for folder, _, _ in levels:
            os.close(folder)


def _names(folder: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        return iter(sorted(entry.name for entry in entries))
