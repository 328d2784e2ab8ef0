"""How the files of usage are opened, and what SQLite's errors mean for them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from isopod.errors import DataDirUnusable, DiskFull, StateBusy, StateCorrupt

_BUSY_MS = 5000
_SPARE_BYTES = 2**20  # less free space than this explains an I/O error


def connect(path: Path, *, mode: Literal["ro", "rw", "rwc"] = "rwc") -> sqlite3.Connection:
    """A connection that one thread at a time may use, whichever that is. "rwc" makes the file."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    # Views, triggers and functions of a schema that somebody else wrote.
    db.execute("PRAGMA trusted_schema = OFF")
    return db


def make_durable(db: sqlite3.Connection) -> None:
    """What was committed is there after a power cut, as far as the disk keeps its word."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")


def outlive_process(db: sqlite3.Connection) -> None:
    """What was committed is there whatever becomes of this process. After a power cut the last of
    it may be gone, none of it half: no commit waits for the disk."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back already after some errors (a full disk, say).
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises DiskFull, StateBusy, StateCorrupt where the file is not what it should be, or
    DataDirUnusable for all that may pass: no file descriptor is left, say."""
    try:
        yield
    except sqlite3.DatabaseError as bad:
        raise _ours(path, bad) from bad


def _ours(path: Path, bad: sqlite3.DatabaseError) -> Exception:
    code, text = getattr(bad, "sqlite_errorcode", 0) & 0xFF, f"{path}: {bad}"
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _no_space(path)):
        return DiskFull(text)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateBusy(f"{path} is locked by another process")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StateCorrupt(text)
    if code == sqlite3.SQLITE_ERROR and "no such" in str(bad):  # a table or column of ours
        return StateCorrupt(text)
    return DataDirUnusable(text)


def _no_space(path: Path) -> bool:
    free = os.statvfs(path.parent)
    return free.f_bavail * free.f_frsize < _SPARE_BYTES


def tenants_in(table: str) -> str:
    """A SELECT of the tenants in `table`, of which an index begins with them: SELECT DISTINCT would
    read every row; this reads one row of each tenant."""
    return f"""
WITH RECURSIVE each (name) AS (
    SELECT min(tenant) FROM {table}
    UNION ALL
    SELECT (SELECT min(tenant) FROM {table} WHERE tenant > each.name) FROM each
    WHERE each.name IS NOT NULL
) SELECT name FROM each WHERE name IS NOT NULL
"""  # noqa: S608
