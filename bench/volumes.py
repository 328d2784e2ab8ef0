"""SQLite on a volume: rows a second, each in a transaction of its own, in a guest; and natively on
the same disk with the same settings."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.figures import Figure, Result
from tools import node as nodes
from tools.http_calls import Caller

ROWS = 5000
ROUNDS = 3
TARGET = 2000.0
_APP = Path(__file__).parent.parent / "tests" / "e2e" / "apps" / "notes"


def run(say: Callable[[str], None]) -> Result:
    with nodes.running(workers=1) as node:
        node.cli("volumes", "create", "notes")
        node.cli("deploy", str(_APP), "--name", "notes")
        say(f"inserting {ROUNDS} times {ROWS} rows in a guest, and natively")
        guest, native = [], []
        with Caller(node.gateway_port, "notes") as caller:
            for number in range(ROUNDS):
                guest.append(float(caller.call(f"/insert?many={ROWS}").json()))
                native.append(_native(node.data_dir / f"native-{number}.db"))
            full = _request_each(caller)
    best, beside = max(guest), max(native)
    return Result(
        "volumes",
        [
            Figure(
                "inserts, a transaction each, best of 3", best, "/s", target=TARGET, at_least=True
            ),
            Figure("the same natively, Python's sqlite3", beside, "/s"),
            Figure("requests that open, insert, commit and close", full, "/s"),
        ],
    )


def _native(path: Path) -> float:
    with closing(sqlite3.connect(path)) as db:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        began = time.monotonic()
        for number in range(ROWS):
            with db:
                db.execute("INSERT INTO notes (text) VALUES (?)", (f"note {number}",))
        return ROWS / (time.monotonic() - began)


def _request_each(caller: Caller, count: int = 200) -> float:
    began = time.monotonic()
    for number in range(count):
        assert caller.call(f"/add?text={number}").status == 200
    return count / (time.monotonic() - began)
