"""How long how many bytes of snapshots were stored: what the bill of storage is made of.

The sizes are looked at every few minutes. Between two looks an app is billed the size that the
first of them saw; an interval longer than `LONGEST_S`, in which the node was off, is not billed.
Kept by hour (UTC) and never changed afterwards, so a month's bill is the same whenever it is made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from isopod.metering.database import connect, make_durable, transaction, translated

EVERY_S = 300.0
LONGEST_S = 900.0  # three looks
HOUR_S = 3600
_TABLES = """
CREATE TABLE IF NOT EXISTS seen(
  tenant TEXT NOT NULL, app TEXT NOT NULL, bytes INTEGER NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (tenant, app)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stored(
  hour INTEGER NOT NULL, tenant TEXT NOT NULL, app TEXT NOT NULL, byte_s INTEGER NOT NULL,
  PRIMARY KEY (tenant, hour, app)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """`app` is the label. In byte-seconds, of the hour that begins at `hour`."""

    tenant: str
    app: str
    hour: int
    byte_s: int


def by_hour(size: int, since: float, until: float) -> Iterator[tuple[int, int]]:
    """(hour, byte-seconds) of `size` bytes over [since, until), in whole milliseconds."""
    begin, end = round(since * 1000), round(until * 1000)
    if not 0 < end - begin <= LONGEST_S * 1000:
        return
    while begin < end:
        hour = begin // (HOUR_S * 1000) * HOUR_S
        until_ms = min(end, (hour + HOUR_S) * 1000)
        yield hour, size * (until_ms - begin) // 1000
        begin = until_ms


class StorageLedger:
    """One SQLite file that only the control process opens. Safe to use from several threads.

    Raises StateCorrupt, StateBusy, DiskFull.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(mode=0o600)
        with self._open() as db:
            make_durable(db)
            db.executescript(_TABLES)

    def look(self, now: float, sizes: Iterable[tuple[str, str, int]]) -> None:
        """Note what is stored now: (tenant, label, bytes); what is not named is gone."""
        with self._open() as db, transaction(db):
            before = db.execute("SELECT tenant, app, bytes, at FROM seen").fetchall()
            db.executemany(
                "INSERT INTO stored(hour, tenant, app, byte_s) VALUES (?, ?, ?, ?) "
                "ON CONFLICT(tenant, hour, app) DO UPDATE SET byte_s = byte_s + excluded.byte_s",
                (
                    (hour, tenant, app, byte_s)
                    for tenant, app, size, at in before
                    for hour, byte_s in by_hour(size, at, now)
                ),
            )
            db.execute("DELETE FROM seen")
            db.executemany(
                "INSERT INTO seen(tenant, app, bytes, at) VALUES (?, ?, ?, ?)",
                ((tenant, app, size, now) for tenant, app, size in sizes if size > 0),
            )

    def stored(self, tenant: str, *, since: int, until: int) -> list[Stored]:
        """The hours of a tenant that begin in [since, until)."""
        query = (
            "SELECT tenant, app, hour, byte_s FROM stored"
            " WHERE tenant = ? AND hour >= ? AND hour < ? ORDER BY hour, app"
        )
        with self._open() as db:
            return [Stored(*row) for row in db.execute(query, (tenant, since, until))]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: looks are minutes apart, and threads differ.
        with translated(self._path), closing(connect(self._path, mode="rwc")) as db:
            yield db
