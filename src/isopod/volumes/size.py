"""How much a folder holds that a guest writes to."""

from __future__ import annotations

import os
from pathlib import Path

ENTRY_BYTES = 16 << 10  # so that a folder has an end, too: measuring it takes its time
_FULL = 1 << 62


def folder_bytes(folder: Path) -> int:
    """What a folder holds. One with paths too long to be followed counts as full."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    one = entry.stat(follow_symlinks=False)
                    total += max(one.st_size, one.st_blocks * 512, ENTRY_BYTES)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            return _FULL
    return total
