"""How much a folder holds that a guest writes to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ENTRY_BYTES = 16 << 10  # so that a folder has an end, too: measuring it takes its time
FULL = 1 << 62  # what is not there counts as more than any volume may hold
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def folder_bytes(folder: Path) -> int:
    """What a folder holds, also while a guest changes it. One that is not there, or with paths too
    long to be followed, counts as full."""
    try:
        return sum(max(one.st_size, one.st_blocks * 512, ENTRY_BYTES) for one in everything(folder))
    except OSError:
        return FULL


def disk_bytes(folder: Path) -> int:
    """What its files take on the disk, one with several names once."""
    total, named = 0, set()
    with suppress(OSError):
        for one in everything(folder):
            if one.st_nlink > 1:
                if one.st_ino in named:
                    continue
                named.add(one.st_ino)
            total += one.st_blocks * 512
    return total


def everything(folder: Path) -> Iterator[os.stat_result]:
    """Below it. OSError when that cannot be read to its end."""
    folders = [(os.fspath(folder), os.lstat(folder))]
    while folders:
        path, listed = folders.pop()
        try:
            here = os.open(path, _FOLDER)
        except OSError as error:
            if error.errno in _GONE:  # since it was listed
                continue
            raise
        try:
            # A guest may put a link in the place of a folder on the way: then it is another one
            # that was opened, perhaps none of the guest's.
            if not os.path.samestat(os.fstat(here), listed):
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        one = entry.stat(follow_symlinks=False)
                        yield one
                        if entry.is_dir(follow_symlinks=False):
                            folders.append((f"{path}/{entry.name}", one))
        finally:
            os.close(here)
