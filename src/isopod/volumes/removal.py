"""Removes folders that a guest wrote to.

`shutil.rmtree` goes down as deep as the folders do, and a guest may nest more of them than Python
can recurse or a path can name: they would stay for ever. Here every folder is moved up before it
is emptied, so that nothing is ever more than two levels down.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def remove_folder(folder: Path) -> None:
    """Remove it and all that is in it. What cannot be removed stays, silently: whoever removes
    its parent tries again."""
    with contextlib.suppress(OSError):
        inner = _unlink_files(folder)
        while inner:
            for one in inner:
                for deeper in _unlink_files(one):
                    deeper.rename(folder / secrets.token_hex(16))
                one.rmdir()
            inner = _unlink_files(folder)
        folder.rmdir()


def _unlink_files(folder: Path) -> list[Path]:
    """The folders that are left in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                os.unlink(entry.path)  # noqa: PTH108  a Path for each of a million is slow
    return folders
