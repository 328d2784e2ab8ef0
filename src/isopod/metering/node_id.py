"""The node's id in usage records and statements: random, made once, kept beside the ledger."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from isopod.errors import StateCorrupt
from isopod.owned_file import write_owned

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
    write_owned(path, f"{made}\n".encode(), durable=True)
    return made
