"""Records, a ledger and spools in a temporary folder."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from isopod.metering.ledger import Keep, Ledger
from isopod.metering.reading import LedgerReader
from isopod.model.tenant import DEFAULT_TENANT
from isopod.model.usage import UsageRecord

NOW = 1_795_000_000.0


def _record(number: int = 0, **values) -> UsageRecord:
    plain = {
        "kind": "request",
        "at": NOW,
        "tenant": DEFAULT_TENANT,
        "app": "hello",
        "version": 1,
        "instance": "00c0ffee",
        "request_id": f"r{number}",
        "status": 200,
        "cpu_ns": 1_000_000,
        "wall_ns": 5_000_000,
        "wall_100ms": 1,
        "bytes_out": 100,
    }
    return UsageRecord(**(plain | values))


@pytest.fixture
def record() -> Callable[..., UsageRecord]:
    return _record


class Books:
    """A ledger with a clock of its own, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.spools = folder / "spools"
        self.now = NOW
        self.keep = Keep()
        self.ledger = self.open()
        self.reader = LedgerReader(self.path, keep_s=self.keep.keep_s, clock=lambda: self.now)

    def open(self) -> Ledger:
        return Ledger(self.path, node="n0", keep=self.keep, clock=lambda: self.now)

    def rows(self, query: str) -> list[tuple]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query).fetchall()

    def request_ids(self) -> list[str]:
        return [one for (one,) in self.rows("SELECT request_id FROM records ORDER BY id")]

    def requests(self, by: str = "app", tenant=DEFAULT_TENANT, **asked) -> int:
        asked = {"since": NOW - 1e7, "until": NOW + 1e7, **asked}
        found = self.reader.totals(tenant, by=by, **asked)
        return sum(total.sums.requests for total in found)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.ledger.close()
