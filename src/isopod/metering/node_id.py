"""The node's id in usage records and statements: random, made once, kept beside the ledger."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from isopod.errors import StateCorrupt, disk_full_is_clear

_ID = re.compile(r"[0-9a-f]{16}")


def node_id(path: Path) -> str:
    """16 hexadecimal digits. Raises StateCorrupt rather than give a node another id: its batches
    that are in the ledger already would be counted again."""
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        return _make(path)
    if not _ID.fullmatch(found):
        raise StateCorrupt(
            f"{path} does not hold a node id",
            hint="restore the file, or take the id from the `epochs` table of ledger.db beside it",
        )
    return found


def _make(path: Path) -> str:
    made = secrets.token_hex(8)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with disk_full_is_clear(str(path.parent)):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    return made
