"""Brings what lies in the workers' spools into the ledger, and then removes it from the spools.

In that order: whoever is killed between the two finds the batch again, and the ledger knows it. A
spool is a file that a worker writes, and a worker runs strangers' code: only our own table is
read, each batch is checked, and a spool that cannot be read keeps no other from being collected.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isopod.errors import DataDirUnusable, DiskFull, IsopodError, StateBusy
from isopod.metering.database import connect, transaction, translated
from isopod.metering.ledger import Applied, Batch, Ledger
from isopod.metering.salvage import COLUMNS, KEYS, readable_keys, readable_rows
from isopod.metering.spool import DAMAGED, NAME, READ, SCHEMA, checksum, move

_log = logging.getLogger(__name__)
_AT_ONCE = 32  # batches in a transaction of the ledger's
_ROUNDS = 200  # of one spool, before the next one's turn
_BUSY_MS = 500  # a spool that somebody holds on to is read the next time
_WORKER = "[0-9A-Za-z._-]*"  # a folder's name becomes part of an epoch
# Keys that `spool` would never write. Without them what is read next has the types it should.
_SWEEP = f"DELETE FROM batches WHERE NOT ({KEYS})"  # noqa: S608
_READ = f"SELECT {COLUMNS} FROM batches ORDER BY epoch, sequence LIMIT {_AT_ONCE}"  # noqa: S608


class Collector:
    """`collect` again and again, in one thread at a time."""

    def __init__(self, spools: Path, *, ledger: Ledger) -> None:
        self._spools = spools
        self._ledger = ledger
        self._told: dict[Path, str] = {}  # what was last said of a spool
        self._tried: set[Path] = set()  # damaged files that could not be moved away

    def collect(self) -> int:
        """How many records were new. Raises what is wrong with the ledger, never with a spool."""
        folders = {
            path.parent
            for name in (DAMAGED, NAME)
            for path in self._spools.glob(f"{_WORKER}/{name}")
        }
        return sum(self._collect(folder / NAME) for folder in sorted(folders))

    def _collect(self, path: Path) -> int:
        records = 0
        try:
            if not path.exists():
                return self._salvage(path.with_name(DAMAGED))
            with _opened(path) as spool:
                # First, and after `path` was opened: a spool that was begun since the damage goes
                # on with its epoch, of which the ledger takes nothing but what comes in order.
                records += self._salvage(path.with_name(DAMAGED))
                if spool.empty():
                    return records
                if swept := spool.sweep():
                    _log.error("%s: %d batches of no worker's are removed", path, swept)
                for _ in range(_ROUNDS):
                    found = spool.read()
                    applied = self._apply(path, [one.batch for one in found])
                    spool.remove(found)
                    records += applied.records
                    if len(found) < _AT_ONCE:
                        break
            self._told.pop(path, None)
        except _SpoolUnreadable as bad:
            if self._told.get(path) != str(bad):
                _log.error("usage in %s cannot be collected: %s", path, bad)
            self._told[path] = str(bad)
        return records

    def _salvage(self, path: Path) -> int:
        """What can be read of a spool that its worker set aside: once, and how many records."""
        if path in self._tried or not (path.exists() or path.is_symlink()):
            return 0
        records = batches = lost = 0
        why = ""
        try:
            with _opened(path) as spool:
                if spool.begun():
                    keys = readable_keys(spool.db)
                    for found, unread in readable_rows(spool.db, keys, at_once=_AT_ONCE):
                        applied = self._apply(path, [one.batch for one in spool.checked(found)])
                        records, batches = records + applied.records, batches + len(found)
                        lost += unread
        except _SpoolUnreadable as bad:
            if isinstance(bad.__cause__, StateBusy | DataDirUnusable | DiskFull):
                raise  # the next try may do better
            why = f": {bad}"
        except sqlite3.DatabaseError as bad:
            why = f": {bad}"
        kept = path.with_name(READ)
        _log.error(
            "%s was damaged: %d batches of it with %d new records could be read, at least %d are "
            "lost%s; it is kept as %s",
            *(path, batches, records, lost, why, kept),
        )
        move(path, kept)
        if path.exists() or path.is_symlink():
            self._tried.add(path)
        return records

    def _apply(self, path: Path, batches: list[Batch]) -> Applied:
        applied = self._ledger.apply(batches)
        if applied.refused:
            first = applied.refused[0].reason
            _log.error("%s: %d usage records refused: %s", path, len(applied.refused), first)
        if applied.corrected:
            _log.error(
                "%s: %d usage records had a time that cannot be, and have today's: look at the "
                "node's clock",
                *(path, applied.corrected),
            )
        if applied.missing:
            _log.error("%s: %d usage records are missing", path, applied.missing)
        return applied


class _SpoolUnreadable(Exception):
    """Of one spool: the others are collected all the same."""


@dataclass(frozen=True, slots=True)
class _Found:
    key: tuple[str, int]  # in the spool
    batch: Batch


class _OpenSpool:
    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._worker = path.parent.name
        self.db = db

    def begun(self) -> bool:
        """Raises _SpoolUnreadable for any other table than ours."""
        with _as_unreadable(self._path):
            schema = self.db.execute("SELECT type, name, sql FROM sqlite_master LIMIT 2")
            found = schema.fetchall()
            if found and found != [("table", "batches", SCHEMA)]:
                raise _SpoolUnreadable("it is not a spool")
            return bool(found)

    def empty(self) -> bool:
        """Also one that its worker has just begun."""
        with _as_unreadable(self._path):
            return not self.begun() or self.db.execute("SELECT 1 FROM batches").fetchone() is None

    def sweep(self) -> int:
        with _as_unreadable(self._path):
            return self.db.execute(_SWEEP).rowcount

    def read(self) -> list[_Found]:
        """The first batches, by epoch and sequence; one whose bytes are not what was written has
        none, and is refused by the ledger."""
        with _as_unreadable(self._path):
            return self.checked(self.db.execute(_READ).fetchall())

    def checked(self, rows: Iterable[tuple[Any, ...]]) -> list[_Found]:
        found = []
        for epoch, sequence, body, sha256 in rows:
            whole = body is not None and checksum(body) == sha256
            # With its worker: nobody's batches pass for another worker's.
            batch = Batch(f"{self._worker}-{epoch}", sequence, body if whole else b"")
            found.append(_Found((epoch, sequence), batch))
        return found

    def remove(self, found: list[_Found]) -> None:
        with _as_unreadable(self._path), transaction(self.db):
            self.db.executemany(
                "DELETE FROM batches WHERE epoch = ? AND sequence = ?", [one.key for one in found]
            )


@contextmanager
def _opened(path: Path) -> Iterator[_OpenSpool]:
    if path.is_symlink() or path.parent.is_symlink():
        raise _SpoolUnreadable("it is a link")
    # A journal of another mode than ours can make SQLite write to, and remove, other files.
    if path.with_name(f"{path.name}-journal").exists():
        raise _SpoolUnreadable("there is a journal beside it that is not ours")
    with _as_unreadable(path):
        db = connect(path, mode="rw")
    with closing(db):
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        yield _OpenSpool(path, db)


@contextmanager
def _as_unreadable(path: Path) -> Iterator[None]:
    try:
        with translated(path):
            yield
    except (IsopodError, UnicodeError) as bad:
        raise _SpoolUnreadable(str(bad)) from bad
