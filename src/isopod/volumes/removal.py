"""Removes folders that a guest wrote to.

`shutil.rmtree` goes down as deep as the folders do, and a guest may nest more of them than Python
can recurse or a path can name: they would stay for ever. Here every folder is moved up before it
is emptied, so that nothing is ever more than two levels down. A link that takes a folder's place
meanwhile is not followed: a worker that was taken over may change what it can write to at any time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_folder(folder: Path) -> None:
    """Remove it and all that is in it; a link itself. What cannot be removed stays, silently:
    whoever removes its parent tries again."""
    with contextlib.suppress(OSError):
        if folder.is_symlink():
            folder.unlink()
            return
        top = os.open(folder, _FOLDER)
        try:
            while inner := _unlink_files(top):
                for name in inner:
                    _move_up(name, top)
                    os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        folder.rmdir()


def _move_up(name: str, top: int) -> None:
    """The folders in the folder of that name in `top`, and its files away."""
    one = os.open(name, _FOLDER, dir_fd=top)
    try:
        for deeper in _unlink_files(one):
            os.rename(deeper, secrets.token_hex(16), src_dir_fd=one, dst_dir_fd=top)
    finally:
        os.close(one)


def _unlink_files(folder: int) -> list[str]:
    """The folders that are left in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders
