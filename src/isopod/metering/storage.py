"""How long how many bytes were stored, of snapshots or of volumes: what the bill of storage is made
of. Each has a ledger of its own.

The sizes are looked at every few minutes. Between two looks an app is billed the size that the
first of them saw; an interval longer than `LONGEST_S`, in which the node was off, is not billed.
Kept by hour and by day (UTC) and never changed afterwards, so a month's bill is the same whenever
it is made. Hours go after `HOURS_KEPT`; days stay. A part of an hour (of a day, where its hours are
gone) has its part of it, so that the bills of adjacent periods make up the bill of both.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isopod.metering.database import connect, make_durable, tenants_in, transaction, translated

EVERY_S = 300.0
LONGEST_S = 900.0  # three looks
HOUR_S, DAY_S = 3600, 86_400
HOURS_KEPT = 35  # days: a month, and some more
By = Literal["app", "day", "hour"]
_TABLES = """
CREATE TABLE IF NOT EXISTS seen(
  tenant TEXT NOT NULL, app TEXT NOT NULL, bytes INTEGER NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (tenant, app)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stored(
  hour INTEGER NOT NULL, tenant TEXT NOT NULL, app TEXT NOT NULL, byte_s INTEGER NOT NULL,
  PRIMARY KEY (tenant, hour, app)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stored_days(
  hour INTEGER NOT NULL, tenant TEXT NOT NULL, app TEXT NOT NULL, byte_s INTEGER NOT NULL,
  PRIMARY KEY (tenant, hour, app)) WITHOUT ROWID;
"""
_TABLE = {HOUR_S: "stored", DAY_S: "stored_days"}
# What an isopod that kept hours alone left behind.
_FILL_DAYS = f"""
INSERT INTO stored_days(hour, tenant, app, byte_s)
SELECT hour - hour % {DAY_S}, tenant, app, sum(byte_s) FROM stored GROUP BY 1, 2, 3
"""  # noqa: S608
_TENANTS = tenants_in("stored")


@dataclass(frozen=True, slots=True)
class Stored:
    """In byte-seconds. By app `app` is the label, and `start` 0; by day and hour `app` is ""."""

    app: str
    start: int
    byte_s: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """The rows of a grain that begin in [first, last); `part`: of the one row's time, from and to
    which second is asked for."""

    grain: int
    first: int
    last: int
    part: tuple[int, int] | None = None


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
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                with transaction(db):
                    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                        db.execute(_FILL_DAYS)
                        db.execute("PRAGMA user_version = 1")

    def look(self, now: float, sizes: Iterable[tuple[str, str, int]]) -> None:
        """Note what is stored now: (tenant, label, bytes); what is not named is gone."""
        with self._open() as db, transaction(db):
            before = db.execute("SELECT tenant, app, bytes, at FROM seen").fetchall()
            for grain, table in _TABLE.items():
                db.executemany(
                    f"INSERT INTO {table}(hour, tenant, app, byte_s) VALUES (?, ?, ?, ?) "  # noqa: S608
                    "ON CONFLICT(tenant, hour, app) DO UPDATE SET"
                    " byte_s = byte_s + excluded.byte_s",
                    (
                        (hour - hour % grain, tenant, app, byte_s)
                        for tenant, app, size, at in before
                        for hour, byte_s in by_hour(size, at, now)
                    ),
                )
            db.execute(
                f"DELETE FROM stored WHERE tenant IN ({_TENANTS}) AND hour < ?",  # noqa: S608
                (hours_from(now),),
            )
            db.execute("DELETE FROM seen")
            db.executemany(
                "INSERT INTO seen(tenant, app, bytes, at) VALUES (?, ?, ?, ?)",
                ((tenant, app, size, now) for tenant, app, size in sizes if size > 0),
            )

    def stored(
        self,
        tenant: str,
        *,
        since: int,
        until: int,
        now: float,
        by: By = "app",
        labels: Sequence[str] = (),
    ) -> list[Stored]:
        """What a tenant (or some apps of it) stored in [since, until), sorted by app or by start.
        By day and by hour the interval is widened to those. What is not over at `now` counts as if
        it ended then."""
        found: dict[tuple[str, int], int] = {}
        with self._open() as db:
            db.execute("BEGIN")
            for piece in _pieces(since, until, by, hours_from(now)):
                for app, start, byte_s in _sums(db, piece, tenant, by, labels):
                    key = (app, 0) if by == "app" else ("", piece.part[0] if piece.part else start)
                    taken = _part(byte_s, piece, now) if piece.part else byte_s
                    found[key] = found.get(key, 0) + taken
        return [Stored(*key, byte_s) for key, byte_s in sorted(found.items()) if byte_s]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: looks are minutes apart, and threads differ.
        with translated(self._path), closing(connect(self._path, mode="rwc")) as db:
            yield db


def hours_from(now: float) -> int:
    """The first hour that is kept. On a day: where no hours are kept, days answer."""
    return int(now // DAY_S - HOURS_KEPT) * DAY_S


def _pieces(since: int, until: int, by: By, hours_from: int) -> Iterator[_Piece]:
    """The fewest rows that make up [since, until), each second once."""
    grain = HOUR_S if by == "hour" else DAY_S
    if by != "app":
        since, until = since - since % grain, until + -until % grain
    at = since
    while at < until:
        midnight = at - at % DAY_S
        end = min(until, midnight + DAY_S)
        if grain == DAY_S and at == midnight and until >= midnight + DAY_S:
            end = until - until % DAY_S
            yield _Piece(DAY_S, at, end)
        elif midnight < hours_from:
            end = min(end, at + HOUR_S) if by == "hour" else end
            yield _Piece(DAY_S, midnight, midnight + 1, (at, end))
        elif at % HOUR_S == 0 and end - at >= HOUR_S:
            end -= end % HOUR_S
            yield _Piece(HOUR_S, at, end)
        else:
            hour = at - at % HOUR_S
            end = min(end, hour + HOUR_S)
            yield _Piece(HOUR_S, hour, hour + 1, (at, end))
        at = end


def _part(byte_s: int, piece: _Piece, now: float) -> int:
    """Rounded so that the parts of a row make it up exactly."""
    assert piece.part is not None
    length = max(1, min(piece.grain, math.ceil(now) - piece.first))
    since, until = (min(length, at - piece.first) for at in piece.part)
    return byte_s * until // length - byte_s * since // length


def _sums(
    db: sqlite3.Connection, piece: _Piece, tenant: str, by: By, labels: Sequence[str]
) -> Iterator[tuple[str, int, int]]:
    """(app, start, byte-seconds) for each app or each start of a piece."""
    query = (
        # In two halves: SQLite's sum() fails where 64 bits do not hold it.
        f"SELECT app, hour, sum(byte_s >> 32), sum(byte_s & 0xffffffff) FROM {_TABLE[piece.grain]}"  # noqa: S608
        " WHERE tenant = ? AND hour >= ? AND hour < ?"
        + (f" AND app IN ({', '.join('?' * len(labels))})" if labels else "")
        + f" GROUP BY {'app' if by == 'app' else 'hour'}"
    )
    for app, start, high, low in db.execute(query, (tenant, piece.first, piece.last, *labels)):
        yield str(app), int(start), (int(high) << 32) + int(low)
