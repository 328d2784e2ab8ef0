"""Our own files: small ones that are their owner's alone and never seen half (tokens, ids, notes),
and how any outlives a power cut."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from isopod.errors import disk_full_is_clear


def make_owned_once(path: Path, data: bytes) -> None:
    """Put `data` in `path` (0600), durably, unless somebody was faster: of two that make a key at
    once, one is the node's. DiskFull."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    write_owned(temporary, data, durable=True)
    try:
        with disk_full_is_clear(str(path.parent)), suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def write_owned(path: Path, data: bytes, *, durable: bool) -> None:
    """Put `data` in `path` (0600) in place of what is there. `durable`: it is on the disk when this
    returns. DiskFull; then `path` is as it was."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with disk_full_is_clear(str(path.parent)):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power cut. OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
