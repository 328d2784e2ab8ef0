"""A worker's spool: usage records on their way to the ledger, in a file that outlives the worker.

One worker writes it; control reads it and removes what the ledger has. Each time a worker opens its
spool a new epoch begins, whose sequence counts records from 1, so no id is ever given twice. A
batch that `write` returned for is safe from the end of the process, and from a power cut once the
ledger has it, a second later: to wait for the disk here too would cost each worker more CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import DataDirUnusable, StateCorrupt, disk_full_is_clear
from isopod.metering.database import connect, outlive_process, transaction, translated
from isopod.metering.rows import encode
from isopod.model.usage import UsageRecord

NAME, DAMAGED, READ = "spool.db", "damaged.db", "damaged-read.db"
SCHEMA = (
    "CREATE TABLE batches (epoch TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL,"
    " sha256 BLOB NOT NULL, PRIMARY KEY (epoch, sequence)) WITHOUT ROWID"
)
# Half a day of a thousand requests a second in which nobody collects. Then it is as if the disk
# were full: see `meter`.
LIMIT_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Records that have their sequence: written as they are, or again as they are."""

    sequence: int
    count: int
    body: bytes


class Spool:
    """Used by one thread at a time."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Opens nothing yet: a full disk must not keep a worker from serving."""
        self.path = path
        self.epoch = ""
        self._limit = limit_bytes
        self._db: sqlite3.Connection | None = None
        self._next = 1

    def batch(self, records: Sequence[UsageRecord]) -> SpoolBatch:
        """Give records their sequence."""
        made = SpoolBatch(self._next, len(records), encode(records))
        self._next += len(records)
        return made

    def write(self, batch: SpoolBatch) -> None:
        """Raises DiskFull, StateBusy, StateCorrupt or DataDirUnusable; then write the same batch
        again."""
        try:
            with translated(self.path):
                db = self._opened()
                with transaction(db):
                    # A commit that failed may have come to pass.
                    db.execute(
                        "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)",
                        (self.epoch, batch.sequence, batch.body, checksum(batch.body)),
                    )
        except StateCorrupt:
            self._set_aside()
            raise
        except DataDirUnusable:
            self.close()  # a connection that failed so is not trusted; the file is
            raise

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            with disk_full_is_clear(str(self.path)):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path.touch(mode=0o600)
            db = connect(self.path)
            try:
                outlive_process(db)
                found = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if found[0] == 0:
                    db.execute(SCHEMA)
                page = db.execute("PRAGMA page_size").fetchone()[0]
                db.execute(f"PRAGMA max_page_count = {self._limit // page}")
            except BaseException:
                db.close()
                raise
            self._db = db
            # Sorts by time, for people; the rest makes it one of its own whatever the clock does.
            self.epoch = self.epoch or f"{time.time_ns():016x}{os.urandom(6).hex()}"
        return self._db

    def _set_aside(self) -> None:
        """A new file begins, in the same epoch. What was committed to the damaged one lies in its
        journal too: the collector reads what can be read."""
        self.close()
        move(self.path, self.path.with_name(DAMAGED))


def move(path: Path, to: Path) -> None:
    """A database with its journal, over what is there: another database's would be taken for
    this one's. What cannot be moved stays."""
    for suffix in ("-wal", "-shm", ""):
        target = Path(f"{to}{suffix}")
        try:
            Path(f"{path}{suffix}").replace(target)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
        except OSError:
            continue


def checksum(body: bytes) -> bytes:
    """SQLite's own checks do not see a changed byte inside a value."""
    return hashlib.sha256(body).digest()
