"""What the ledger says, to whoever shows or bills it.

`totals` for sums, `records` for the latest single records; every question names its tenant. Times
are seconds since the epoch (UTC). Each question reads one moment, and waits for no writer.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isopod.metering import rollups
from isopod.metering.database import connect, tenants_in, translated
from isopod.metering.prices import Sheets
from isopod.metering.rollups import DAY, HOUR, MINUTE, Span, Sums
from isopod.metering.rows import FIELDS, Row
from isopod.model.tenant import TenantName
from isopod.model.usage import UsageRecord
from isopod.settings_file import Prices

By = Literal["app", "day", "hour", "minute"]
_SUMS = tuple(Sums.__slots__)
# In two halves: SQLite's sum() fails where 64 bits do not hold it.
_ADDED = ", ".join(
    f"max({name})"
    if name == "peak_memory_bytes"
    else f"sum({name} >> 32), sum({name} & 0xffffffff)"
    for name in _SUMS
)
NOBODY = ""  # in place of a tenant: no tenant is called so
TENANTS = tenants_in("rollups")


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Sums of one app (by "app"; `start` is 0 then), or of one minute, hour or day (`app` is the
    app asked for, or "")."""

    app: str
    start: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """A record and its id (node, epoch, sequence), which no other has."""

    node: str
    epoch: str
    sequence: int
    record: UsageRecord


@dataclass(frozen=True, slots=True)
class Faults:
    """Records that are not, or not with their own time, in a period's sums."""

    missing: int = 0  # of the whole node: what never came names no tenant
    refused: int = 0  # of the whole node: what cannot be read or trusted names none either
    clock_corrected: int = 0  # of the tenant


class LedgerReader:
    """Safe to use from several threads. Raises StateCorrupt, StateBusy, DiskFull."""

    def __init__(
        self, path: Path, *, keep_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        """`keep_s`: for how long minutes are kept (`ledger.Keep`)."""
        self._path = path
        self._keep_s = keep_s
        self._clock = clock

    def totals(
        self, tenant: TenantName, *, app: str | None = None, since: float, until: float, by: By
    ) -> list[UsageTotal]:
        """What a tenant (or one app of it, by its label) used in [since, until), sorted by app or
        by start. The interval is widened to whole minutes (to hours where no minutes are kept any
        more, and to days where no hours are), by "hour" and "day" to those. Minutes without usage
        have no row."""
        if by == "app":
            now = self._clock()
            wanted = rollups.spans(
                since,
                until,
                minutes_from=minutes_kept_from(now, self._keep_s),
                hours_from=rollups.hours_kept_from(now),
            )
        else:
            grain = {"minute": MINUTE, "hour": HOUR, "day": DAY}[by]
            wanted = [rollups.widened(since, until, grain)]
        found: dict[tuple[str, int], Sums] = {}
        for row in self._rollups(tenant, app, wanted, by):
            key = (str(row[0]), 0) if by == "app" else (app or "", int(row[1]))
            sums = _whole(row[2:])
            if key in found:
                found[key].add(sums)
            else:
                found[key] = sums
        return [UsageTotal(*key, sums) for key, sums in sorted(found.items())]

    def _rollups(
        self, tenant: TenantName, app: str | None, wanted: list[Span], by: By
    ) -> list[Row]:
        """A row for each app or start of each span."""
        query = (
            f"SELECT app, start, {_ADDED} FROM rollups WHERE tenant = ?"  # noqa: S608
            " AND grain = ? AND start >= ? AND start < ?"
            + (" AND app = ?" if app else "")
            + f" GROUP BY {'app' if by == 'app' else 'start'}"
        )
        only = (app,) if app else ()
        with self._open() as db:
            rows = (
                db.execute(query, (tenant, span.grain, span.since, span.until, *only))
                for span in wanted
            )
            return list(itertools.chain.from_iterable(rows))

    def records(
        self, tenant: TenantName, *, app: str | None = None, limit: int = 100
    ) -> list[LedgerRecord]:
        """The latest, newest first, as far as they are kept."""
        query = (
            f"SELECT r.id, e.node, e.epoch, r.sequence, {', '.join(f'r.{n}' for n in FIELDS)}"  # noqa: S608
            " FROM records r JOIN epochs e ON e.id = r.epoch WHERE r.tenant = ? AND r.app = ?"
            " ORDER BY r.id DESC LIMIT ?"
        )
        with self._open() as db:
            # App by app, because the index is: one of all tenants' would cost each insert more.
            apps = [app] if app else _apps(db, tenant)
            rows = [row for one in apps for row in db.execute(query, (tenant, one, limit))]
        rows.sort(key=lambda row: -int(row[0]))
        return [
            LedgerRecord(str(node), str(epoch), int(sequence), _record(values))
            for _, node, epoch, sequence, *values in rows[:limit]
        ]

    def tenants(self) -> list[TenantName]:
        """All that ever used something, also those that were deleted since; sorted."""
        with self._open() as db:
            return [TenantName(name) for (name,) in db.execute(TENANTS)]

    def lost(self) -> int:
        """Records that had a sequence and never came, or were refused: of all tenants."""
        with self._open() as db:
            # In Python: a sum of SQLite's fails where 64 bits do not hold it.
            return sum(int(one) for (one,) in db.execute("SELECT missing + refused FROM epochs"))

    def faults(self, tenant: TenantName, *, since: int, until: int) -> Faults:
        """What was found wrong on the days that begin in [since, until)."""
        query = (
            "SELECT missing, refused, corrected FROM faults"
            " WHERE tenant IN (?, ?) AND day >= ? AND day < ?"
        )
        with self._open() as db:
            rows = db.execute(query, (tenant, NOBODY, since, until)).fetchall()
        return Faults(*(sum(column) for column in zip(*rows, strict=True))) if rows else Faults()

    def sheets(self) -> Sheets:
        """Each from the day it holds; () before control ran for the first time."""
        with self._open() as db:
            rows = db.execute("SELECT since, prices FROM sheets ORDER BY since").fetchall()
        return tuple((int(since), Prices.from_json(json.loads(text))) for since, text in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with translated(self._path), closing(connect(self._path, mode="ro")) as db:
            db.execute("BEGIN")
            yield db


def minutes_kept_from(now: float, keep_s: float) -> int:
    """The first minute that is kept. On an hour: where no minutes are kept, hours answer."""
    return rollups.widened(now - keep_s, now, HOUR).since


def _whole(added: Sequence[int]) -> Sums:
    """Of `_ADDED`. The peak is its last column, as it is of Sums."""
    halves = iter(added[:-1])
    values = [(high << 32) + low for high, low in zip(halves, halves, strict=True)]
    return Sums(*[*values, added[-1]])


def _apps(db: sqlite3.Connection, tenant: TenantName) -> list[str]:
    found = db.execute(
        "SELECT DISTINCT app FROM rollups WHERE tenant = ? AND grain = ?", (tenant, DAY)
    )
    return [str(app) for (app,) in found]


def _record(row: Sequence[Any]) -> UsageRecord:
    values = dict(zip(FIELDS, row, strict=True))
    return UsageRecord(
        **{**values, "tenant": TenantName(values["tenant"]), "cold": bool(values["cold"])}
    )
