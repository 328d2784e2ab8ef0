"""The ledger: what every tenant used of this node, each record counted exactly once.

Control alone writes it. A batch is known by (node, epoch, sequence of its first record). An epoch
is one worker's spool since it was last opened, and its batches come in order: so the highest
sequence that was taken tells whether a batch was. The batch, that number and the roll-ups are one
transaction: whoever is killed wherever applies the same batch again, and nothing changes.

Single records and minutes are kept for a while (`Keep`), hours for longer, days for ever. `reading`
reads.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.metering import rollups
from isopod.metering.database import connect, make_durable, transaction, translated
from isopod.metering.ledger_tables import FAULTS, INSERT, SCHEMA, SUMS, UPSERT
from isopod.metering.period import next_month
from isopod.metering.reading import NOBODY, TENANTS, minutes_kept_from
from isopod.metering.rollups import DAY, HOUR, MINUTE, MOST, Key, Sums
from isopod.metering.rows import Refused, Row, decode
from isopod.settings_file import Prices

_EPOCH = re.compile(r"[0-9A-Za-z._-]{1,100}")
# A million records a second for twelve days, in one epoch. What was skipped is counted, and counts
# of many epochs are added up: a crafted sequence must not make them overflow.
_MOST_SEQUENCE = 2**40
# A client that goes away made no error.
_NO_ERROR = frozenset({"ok", "client_disconnected"})
_PRUNED_AT_ONCE = 5000  # a transaction holds everybody else up


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long single records and minutes are kept (seconds); of more than `max_records` the
    oldest go earlier."""

    keep_s: float = 72 * 3600.0
    max_records: int = 5_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What a spool gave: its epoch, the sequence of the first of its records, and `rows.encode`'s
    bytes."""

    epoch: str
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of some batches. `missing`: sequences that were skipped, and so are lost."""

    records: int = 0
    batches: int = 0
    again: int = 0  # batches that had been taken before
    missing: int = 0
    refused: tuple[Refused, ...] = ()
    corrected: int = 0  # records that got the ledger's time for one that cannot be


_Minute = tuple[str, str, int, int]  # a Key's values: as one, each record would make an object


@dataclass(slots=True)
class _Mark:
    """An epoch as far as it was taken."""

    id: int
    applied: int
    missing: int = 0
    refused: int = 0


class Ledger:
    """Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        node: str,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises StateCorrupt, StateBusy, DiskFull."""
        self.node = node
        self._path = path
        self._keep = keep or Keep()
        self._clock = clock
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        with translated(path):
            self._db = connect(path)
            try:
                make_durable(self._db)
                self._db.executescript(SCHEMA)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- writing ----------------------------------------------------------------------------

    def apply(self, batches: Sequence[Batch]) -> Applied:
        """Take all of them or (when this raises) none; those taken before are left out. The
        batches of an epoch in the order of their sequence."""
        now = self._clock()
        records = taken = again = missing = 0
        refused: list[Refused] = []
        minutes: dict[_Minute, Sums] = {}
        marks: dict[str, _Mark] = {}
        clocks: dict[str, int] = {}  # tenant -> records whose clock was corrected
        with self._lock, translated(self._path), transaction(self._db):
            for batch in batches:
                if not _is_sound(batch):
                    refused.append(Refused(-1, "an epoch or a sequence that is none"))
                    continue
                mark = marks.get(batch.epoch)
                if mark is None:
                    mark = marks[batch.epoch] = self._mark(batch.epoch)
                if batch.sequence <= mark.applied:
                    again += 1
                    continue
                rows, wrong, corrected = decode(batch.body, now=now)
                refused += wrong
                mark.refused += len(wrong)
                for tenant, count in corrected.items():
                    clocks[tenant] = clocks.get(tenant, 0) + count
                mark.missing += batch.sequence - mark.applied - 1
                missing += batch.sequence - mark.applied - 1
                # A batch that cannot be read counts as one: the next one's sequence tells the rest.
                mark.applied = batch.sequence + max(1, len(rows) + len(wrong)) - 1
                self._db.executemany(
                    INSERT, [(mark.id, batch.sequence + index, *row) for index, row in rows]
                )
                _sum_up(minutes, (row for _, row in rows))
                records += len(rows)
                taken += 1
            self._roll_up({Key(*minute): sums for minute, sums in minutes.items()})
            for mark in marks.values():
                self._db.execute(
                    "UPDATE epochs SET applied = ?, missing = missing + ?, refused = refused + ?"
                    " WHERE id = ?",
                    (mark.applied, mark.missing, mark.refused, mark.id),
                )
            self._note(int(now), missing, len(refused), clocks)
        return Applied(records, taken, again, missing, tuple(refused), sum(clocks.values()))

    def _note(self, now: int, missing: int, refused: int, clocks: dict[str, int]) -> None:
        """What a period's statements say about the records behind them, by the day it came out."""
        rows = [(tenant, 0, 0, count) for tenant, count in clocks.items()]
        if missing or refused:
            rows.append((NOBODY, missing, refused, 0))
        self._db.executemany(
            FAULTS,
            [(now - now % DAY, *row) for row in rows],
        )

    def _mark(self, epoch: str) -> _Mark:
        self._db.execute(
            "INSERT OR IGNORE INTO epochs VALUES (NULL, ?, ?, 0, 0, 0)", (self.node, epoch)
        )
        found = self._db.execute(
            "SELECT id, applied FROM epochs WHERE node = ? AND epoch = ?", (self.node, epoch)
        ).fetchone()
        return _Mark(*found)

    def _roll_up(self, minutes: dict[Key, Sums]) -> None:
        hours = rollups.coarser(minutes.items(), HOUR)
        days = rollups.coarser(hours.items(), DAY)
        for grain, sums in ((MINUTE, minutes), (HOUR, hours), (DAY, days)):
            self._db.executemany(
                UPSERT,
                [
                    (grain, key.start, key.tenant, key.app, key.version, *_bounded(one))
                    for key, one in sums.items()
                ],
            )

    def hold_prices(self, prices: Prices) -> None:
        """Note the node's price sheet, if it is another one: it holds from the next day (UTC), so
        that no moment that has passed gets another price; another currency from the next month,
        because one statement has one. The first sheet of all holds from ever."""
        now = int(self._clock())
        with self._lock, translated(self._path), transaction(self._db):
            # One that never came to hold.
            self._db.execute("DELETE FROM sheets WHERE since > ?", (now,))
            last = self._db.execute("SELECT prices FROM sheets ORDER BY since DESC").fetchone()
            if last is None:
                since = 0
            elif (before := Prices.from_json(json.loads(last[0]))) == prices:
                return
            elif before.currency == prices.currency:
                since = now - now % DAY + DAY
            else:
                since = next_month(now)
            said = json.dumps(prices.to_json())
            self._db.execute("INSERT INTO sheets VALUES (?, ?)", (since, said))

    def prune(self) -> int:
        """Forget some of what was kept for long enough; how many rows. 0: nothing is left to."""
        now, keep = self._clock(), self._keep
        with self._lock, translated(self._path), transaction(self._db):
            oldest = "SELECT id FROM records ORDER BY id LIMIT ?"
            gone = self._db.execute(
                f"DELETE FROM records WHERE id IN ({oldest}) AND (at < ?"  # noqa: S608
                " OR id <= (SELECT max(id) FROM records) - ?)",
                (_PRUNED_AT_ONCE, now - keep.keep_s, keep.max_records),
            ).rowcount
            for grain, kept_from in (
                (MINUTE, minutes_kept_from(now, keep.keep_s)),
                (HOUR, rollups.hours_kept_from(now)),
            ):
                gone += self._db.execute(
                    f"DELETE FROM rollups WHERE grain = ? AND start < ? AND tenant IN ({TENANTS})",  # noqa: S608
                    (grain, kept_from),
                ).rowcount
            return gone


def _is_sound(batch: Batch) -> bool:
    """A spool is a file that others write: types are not what they should be either."""
    return (
        type(batch.epoch) is str
        and _EPOCH.fullmatch(batch.epoch) is not None
        and type(batch.sequence) is int
        and 1 <= batch.sequence <= _MOST_SEQUENCE
        and type(batch.body) is bytes
    )


def _bounded(sums: Sums) -> list[int]:
    return [min(MOST, getattr(sums, name)) for name in SUMS]


def _sum_up(minutes: dict[_Minute, Sums], rows: Iterable[Row]) -> None:
    """Add records to the sums of their minutes."""
    for row in rows:
        (kind, at, tenant, app, version, _, _, outcome, _, cold, cpu, host, wall, wait, peak) = row[
            :15
        ]
        memory, bytes_in, bytes_out, wall_100ms, count = row[15:]
        minute = (tenant, app, version, int(at) // MINUTE * MINUTE)
        sums = minutes.get(minute)
        if sums is None:
            sums = minutes[minute] = Sums()
        if kind == "request":
            sums.requests += count
            sums.wall_ns += wall
            sums.wall_100ms += wall_100ms
            if cold:
                sums.cold_starts += count
            if outcome not in _NO_ERROR:
                sums.errors += count
        elif kind == "start":
            sums.starts += count
        sums.cpu_ns += cpu
        sums.host_ns += host
        sums.wait_ns += wait
        sums.memory_byte_ms += memory
        sums.bytes_in += bytes_in
        sums.bytes_out += bytes_out
        sums.peak_memory_bytes = max(sums.peak_memory_bytes, peak)
