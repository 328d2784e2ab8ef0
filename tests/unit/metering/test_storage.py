import itertools
import sqlite3
import stat
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isopod.metering.storage import DAY_S, HOUR_S, LONGEST_S, StorageLedger, by_hour, hours_from

START = 1_800_000_000 // HOUR_S * HOUR_S


@pytest.fixture
def ledger(tmp_path):
    return StorageLedger(tmp_path / "storage.db")


def stored(ledger, tenant, since=0, until=2**40, by="hour", now=START + 86_400, labels=()):
    if until == 2**40:
        since, until = START - 86_400, START + 86_400
    return ledger.stored(tenant, since=since, until=until, by=by, now=now, labels=labels)


def test_a_size_is_billed_for_the_time_until_the_next_look(ledger):
    ledger.look(START, [("t", "a", 1000), ("u", "b", 1)])
    ledger.look(START + 300, [("t", "a", 5000)])  # larger only from now on; b is gone
    ledger.look(START + 600, [])
    ledger.look(START + 900, [])
    (found,) = stored(ledger, "t", START, START + 1)
    assert (found.start, found.byte_s) == (START, 300 * 1000 + 300 * 5000)
    assert [one.app for one in stored(ledger, "t", by="app")] == ["a"]
    assert [one.byte_s for one in stored(ledger, "u")] == [300]


def test_the_first_look_bills_nothing(ledger):
    ledger.look(START, [("t", "a", 1000)])
    assert stored(ledger, "t") == []


@pytest.mark.parametrize("later", [LONGEST_S + 1, 86_400, 0, -10])
def test_time_in_which_nobody_looked_is_not_billed(ledger, later):
    ledger.look(START, [("t", "a", 1000)])
    ledger.look(START + later, [("t", "a", 1000)])
    assert stored(ledger, "t") == []


def test_a_look_that_crosses_the_hour_is_split(ledger):
    ledger.look(START - 100, [("t", "a", 10)])
    ledger.look(START + 200, [("t", "a", 10)])
    found = stored(ledger, "t")
    assert [(one.start, one.byte_s) for one in found] == [(START - HOUR_S, 1000), (START, 2000)]


def test_what_was_noted_is_there_after_a_restart_and_for_the_owner_alone(tmp_path):
    path = tmp_path / "storage.db"
    StorageLedger(path).look(START, [("t", "a", 10)])
    StorageLedger(path).look(START + 100, [])
    assert [one.byte_s for one in stored(StorageLedger(path), "t")] == [1000]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.integers(0, 2**50), st.floats(1e9, 2e9), st.floats(0, LONGEST_S))
def test_the_hours_of_an_interval_make_it_up(size, since, length):
    found = list(by_hour(size, since, since + length))
    whole = size * (round((since + length) * 1000) - round(since * 1000)) // 1000
    assert whole - len(found) <= sum(byte_s for _, byte_s in found) <= whole
    assert all(hour % HOUR_S == 0 for hour, _ in found)


DAYS = 50  # of which the last 35 have hours


@pytest.fixture(scope="module")
def years(tmp_path_factory):
    """Two apps and their days and hours, with a size that does not divide by anything."""
    path = tmp_path_factory.mktemp("storage") / "storage.db"
    ledger = StorageLedger(path)
    first = START // DAY_S * DAY_S
    with closing(sqlite3.connect(path)) as db, db:
        for hour in range(first, first + DAYS * DAY_S, HOUR_S):
            for table, start in (("stored", hour), ("stored_days", hour // DAY_S * DAY_S)):
                db.executemany(
                    f"INSERT INTO {table} VALUES (?, 't', ?, ?) ON CONFLICT DO UPDATE SET"
                    " byte_s = byte_s + excluded.byte_s",
                    [(start, "a", 1_234_567), (start, "b", 7_777)],
                )
    now = first + DAYS * DAY_S
    ledger.look(now, [])
    return ledger, first, now


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_adjacent_periods_make_up_the_whole(years, data):
    ledger, first, now = years
    times = st.integers(0, DAYS * 1440).map(lambda minute: first + 60 * minute)
    cuts = sorted(data.draw(st.lists(times, min_size=2, max_size=6)))

    def billed(since, until):
        return {one.app: one.byte_s for one in stored(ledger, "t", since, until, "app", now)}

    whole = billed(cuts[0], cuts[-1])
    parts = [billed(since, until) for since, until in itertools.pairwise(cuts)]
    for app in ("a", "b"):
        assert sum(part.get(app, 0) for part in parts) == whole.get(app, 0)


def test_half_an_hour_has_half_of_its_storage(years):
    ledger, _, now = years
    eight = now - DAY_S + 8 * HOUR_S
    for since in (eight, eight + 1800):
        found = stored(ledger, "t", since, since + 1800, "app", now, labels=["b"])
        assert [(one.app, one.byte_s) for one in found] in ([("b", 3888)], [("b", 3889)])


def test_an_hour_that_is_not_over_is_billed_as_far_as_it_went(ledger):
    ledger.look(START, [("t", "a", 1000)])
    ledger.look(START + 600, [])
    for until in (START + 600, START + 660):
        found = stored(ledger, "t", START, until, "app", now=START + 600)
        assert [one.byte_s for one in found] == [600_000]


def test_hours_go_after_a_while_and_their_days_stay(years):
    ledger, first, now = years
    with ledger._open() as db:
        assert db.execute("SELECT min(hour) FROM stored").fetchone() == (hours_from(now),)
    assert hours_from(now) == now - 35 * DAY_S
    days = stored(ledger, "t", first, now, "day", now, labels=["a"])
    assert [one.byte_s for one in days] == [24 * 1_234_567] * DAYS
    hours = stored(ledger, "t", first, first + DAY_S, "hour", now)  # of a day whose hours are gone
    assert len(hours) == 24 and sum(one.byte_s for one in hours) == 24 * (1_234_567 + 7_777)


def test_a_file_of_hours_alone_gets_its_days(tmp_path):
    path = tmp_path / "storage.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE stored(hour INTEGER NOT NULL, tenant TEXT NOT NULL, app TEXT NOT NULL,"
            " byte_s INTEGER NOT NULL, PRIMARY KEY (tenant, hour, app)) WITHOUT ROWID"
        )
        db.executemany("INSERT INTO stored VALUES (?, 't', 'a', 5)", [(START,), (START + HOUR_S,)])
    for _ in range(2):
        found = stored(StorageLedger(path), "t", by="day")
        assert [one.byte_s for one in found if one.byte_s] in ([10], [5, 5])


def test_a_sum_that_64_bits_do_not_hold_is_exact(ledger):
    with ledger._open() as db:
        db.executemany(
            "INSERT INTO stored_days VALUES (?, 't', ?, ?)",
            [(START // DAY_S * DAY_S, f"a{n}", 2**62) for n in range(5)],
        )
    assert [one.byte_s for one in stored(ledger, "t", by="day")] == [5 * 2**62]
