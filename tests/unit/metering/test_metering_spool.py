import resource
import sqlite3
import subprocess
import sys

import pytest

from isopod.errors import DataDirUnusable, DiskFull, StateCorrupt
from isopod.metering.collector import Collector
from isopod.metering.spool import Spool, move
from isopod.model.usage import UsageRecord


def spool_of(books, worker="0", **options) -> Spool:
    return Spool(books.spools / worker / "spool.db", **options)


def put(spool, *records: UsageRecord) -> None:
    spool.write(spool.batch(records))


def collect(books) -> int:
    return Collector(books.spools, ledger=books.ledger).collect()


def test_what_was_written_is_collected_and_then_gone_from_the_spool(books, record):
    spool = spool_of(books)
    put(spool, record(1), record(2))
    put(spool, record(3))
    assert collect(books) == 3
    put(spool, record(4))
    assert collect(books) == 1
    assert collect(books) == 0
    spool.close()
    assert books.request_ids() == ["r1", "r2", "r3", "r4"] and books.reader.lost() == 0


def test_the_spool_of_a_worker_that_is_gone_is_collected(books, record):
    for worker in ("0", "1", "7"):
        spool = spool_of(books, worker)
        put(spool, record(worker))
        spool.close()
    again = spool_of(books, "7")  # its next process: another epoch, from 1
    put(again, record(8))
    again.close()
    assert collect(books) == 4
    assert books.rows("SELECT count(*), max(sequence) FROM records") == [(4, 1)]


def test_a_batch_that_is_written_twice_is_there_once(books, record):
    spool = spool_of(books)
    batch = spool.batch([record(1)])
    spool.write(batch)
    spool.write(batch)
    assert collect(books) == 1
    spool.write(batch)  # its commit was reported as failed, and the ledger has it
    assert collect(books) == 0
    assert books.requests() == 1
    spool.close()


def test_a_spool_has_a_bound_and_goes_on_when_it_was_collected(books, record):
    spool = spool_of(books, limit_bytes=256 << 10)
    put(spool, record(0))
    with pytest.raises(DiskFull):
        for number in range(1, 100):
            batch = spool.batch([record(f"{number}-{n}") for n in range(100)])
            spool.write(batch)
    assert collect(books) == 1 + 100 * (number - 1)
    spool.write(batch)
    assert collect(books) == 100
    assert books.reader.lost() == 0
    spool.close()


def test_a_damaged_spool_is_set_aside_and_a_new_one_begun(books, record):
    path = spool_of(books).path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database" * 1000)
    spool = spool_of(books)
    batch = spool.batch([record(1)])
    with pytest.raises(StateCorrupt):
        spool.write(batch)
    spool.write(batch)
    assert collect(books) == 1
    assert path.with_name("damaged-read.db").exists()
    spool.close()


def test_a_passing_error_loses_nothing_that_was_committed(books, record):
    """No file descriptor is left: SQLite cannot open the file."""
    spool = spool_of(books)
    put(spool, record(1), record(2))
    spool._db.close()  # as a killed worker's: what was committed is in the journal too
    spool._db = None
    batch = spool.batch([record(3)])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(DataDirUnusable):
            spool.write(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    spool.write(batch)
    spool.close()
    assert not spool.path.with_name("damaged.db").exists()
    assert collect(books) == 3
    assert books.request_ids() == ["r1", "r2", "r3"]


def damaged_in_the_middle(spool) -> None:
    """Of many batches; the worker finds out at its next write and sets the file aside."""
    spool.close()
    page = 4096
    with spool.path.open("r+b") as file:
        pages = spool.path.stat().st_size // page
        for number in range(pages // 2, pages // 2 + 2):
            file.seek(number * page)
            file.write(b"\xff" * page)


def test_what_can_be_read_of_a_damaged_spool_is_collected_once(books, record, caplog):
    spool = spool_of(books)
    for number in range(200):
        put(spool, record(number))
    damaged_in_the_middle(spool)
    move(spool.path, spool.path.with_name("damaged.db"))  # as `write` does when it finds out
    put(spool, record(200))
    found = collect(books)
    assert 100 < found < 201
    assert found + books.reader.lost() == 201
    assert "r0" in books.request_ids() and "r199" in books.request_ids()
    assert "could be read" in caplog.text and "are lost" in caplog.text
    assert spool.path.with_name("damaged-read.db").exists()
    assert not spool.path.with_name("damaged.db").exists()
    put(spool, record(201))
    assert collect(books) == 1
    spool.close()


def test_a_spool_is_set_aside_with_its_journal(books, record):
    spool = spool_of(books)
    put(spool, record(1))
    holder = sqlite3.connect(spool.path)  # so that closing leaves the journal where it is
    holder.execute("SELECT * FROM batches").fetchall()
    spool._set_aside()
    assert spool.path.with_name("damaged.db-wal").stat().st_size > 0
    put(spool, record(2))
    holder.close()
    assert collect(books) == 2
    assert books.request_ids() == ["r1", "r2"] and books.reader.lost() == 0
    spool.close()


def test_a_spool_with_a_worse_clock_is_collected(books, record, caplog):
    spool = spool_of(books)
    put(spool, record(1, at=books.now + 1e9), record(2))
    assert collect(books) == 2
    assert "clock" in caplog.text and books.requests() == 2
    spool.close()


def changed(path, query: str, *values) -> None:
    with sqlite3.connect(path) as db:
        db.execute(query, values)
    db.close()


@pytest.mark.parametrize(
    ("query", "values", "refused"),
    [
        ("UPDATE batches SET body = ? WHERE sequence = 2", [b"[]"], 1),  # not its checksum
        ("UPDATE batches SET body = zeroblob(40000000) WHERE sequence = 2", [], 1),
        ("UPDATE batches SET body = 'text' WHERE sequence = 2", [], 1),
        ("UPDATE batches SET epoch = ? WHERE sequence = 2", [b"\xff\xfe"], 1),
        ("UPDATE batches SET epoch = CAST(x'ff' AS TEXT) WHERE sequence = 2", [], 1),
        ("UPDATE batches SET epoch = '../1-x' WHERE sequence = 2", [], 1),
        ("INSERT INTO batches VALUES ('e', -5, x'', x'')", [], 0),
        ("INSERT INTO batches VALUES ('e', 'seven', x'', x'')", [], 0),
        ("INSERT INTO batches VALUES ('e', 1e300, x'', x'')", [], 0),
        ("INSERT INTO batches VALUES ('e', 9223372036854775807, x'', x'')", [], 0),
    ],
)
def test_a_batch_that_no_worker_wrote_is_refused_and_the_others_collected(
    books, record, query, values, refused
):
    spool = spool_of(books)
    for number in (1, 2, 3):
        put(spool, record(number))
    spool.close()
    changed(spool.path, query, *values)
    assert collect(books) == 3 - refused
    assert collect(books) == 0
    with sqlite3.connect(spool.path) as db:
        assert db.execute("SELECT count(*) FROM batches").fetchone() == (0,)
    db.close()
    assert books.requests() == 3 - refused
    assert books.reader.lost() >= refused


@pytest.mark.parametrize("hostile", ["view", "trigger", "garbage", "link", "journal", "folder"])
def test_a_file_that_is_no_spool_is_left_alone_and_told_once(books, record, caplog, hostile):
    good = spool_of(books, "1")
    put(good, record(1))
    bad = spool_of(books, "0")
    put(bad, record(2))
    bad.close()
    if hostile == "view":
        changed(bad.path, "DROP TABLE batches")
        loop = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n"
        changed(bad.path, f"CREATE VIEW batches AS SELECT 'e' epoch, i sequence FROM ({loop})")
    elif hostile == "trigger":
        changed(
            bad.path,
            "CREATE TRIGGER again AFTER DELETE ON batches BEGIN"
            " INSERT INTO batches VALUES (old.epoch, old.sequence + 1, old.body, old.sha256); END",
        )
    elif hostile == "garbage":
        bad.path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    elif hostile == "link":
        bad.path.replace(books.spools / "elsewhere.db")
        bad.path.symlink_to(books.spools / "elsewhere.db")
    elif hostile == "journal":
        bad.path.with_name("spool.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 9)
    else:
        bad.path.unlink()
        bad.path.mkdir()
    collector = Collector(books.spools, ledger=books.ledger)
    assert collector.collect() == 1
    put(good, record(3))
    assert collector.collect() == 1
    good.close()
    assert books.request_ids() == ["r1", "r3"]
    assert caplog.text.count("cannot be collected") == 1


def test_a_spool_cannot_pass_its_batches_for_another_workers(books, record):
    honest = spool_of(books, "0")
    put(honest, record(1))
    changed_epoch = honest.epoch
    thief = spool_of(books, "1")
    thief.epoch = changed_epoch
    thief._next = 1000
    put(thief, record(2))
    put(honest, record(3))
    for spool in (thief, honest):
        spool.close()
    assert collect(books) == 3


# Collects in a process that is killed at its n-th SQL statement, wherever that is.
_KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from isopod.metering import database
from isopod.metering.collector import Collector
from isopod.metering.ledger import Ledger

folder, left = Path(sys.argv[1]), int(sys.argv[2])
connect = sqlite3.connect

def counted(*args, **options):
    db = connect(*args, **options)
    db.set_trace_callback(count)
    return db

def count(_statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

database.sqlite3.connect = counted
Collector(folder / "spools", ledger=Ledger(folder / "ledger.db", node="n0")).collect()
"""


def test_a_collector_that_is_killed_anywhere_counts_nothing_twice_and_loses_nothing(books, record):
    books.ledger.close()
    statement = killed = 0
    number = 0
    while True:
        spool = spool_of(books)
        for _ in range(2):
            put(spool, record(number), record(number + 1))
            number += 2
        spool.close()
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(books.path.parent), str(statement)], check=False
        )
        if done.returncode == 0:
            break
        assert done.returncode == -9
        killed += 1
        # Not every statement by itself, for the time that it takes; each kind of them.
        statement += 1 if statement < 40 else 3
    assert killed > 20
    books.ledger = books.open()
    collect(books)
    assert sorted(books.request_ids()) == sorted(f"r{n}" for n in range(number))
    assert books.requests() == books.requests("day") == number
    assert books.reader.lost() == 0
