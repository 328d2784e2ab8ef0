import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.metering.storage import HOUR_S, LONGEST_S, StorageLedger, by_hour

START = 1_800_000_000 // HOUR_S * HOUR_S


@pytest.fixture
def ledger(tmp_path):
    return StorageLedger(tmp_path / "storage.db")


def test_a_size_is_billed_for_the_time_until_the_next_look(ledger):
    ledger.look(START, [("t", "a", 1000), ("u", "b", 1)])
    ledger.look(START + 300, [("t", "a", 5000)])  # larger only from now on; b is gone
    ledger.look(START + 600, [])
    ledger.look(START + 900, [])
    (found,) = ledger.stored("t", since=START, until=START + 1)
    assert (found.app, found.hour, found.byte_s) == ("a", START, 300 * 1000 + 300 * 5000)
    assert [one.byte_s for one in ledger.stored("u", since=0, until=2**40)] == [300]


def test_the_first_look_bills_nothing(ledger):
    ledger.look(START, [("t", "a", 1000)])
    assert ledger.stored("t", since=0, until=2**40) == []


@pytest.mark.parametrize("later", [LONGEST_S + 1, 86_400, 0, -10])
def test_time_in_which_nobody_looked_is_not_billed(ledger, later):
    ledger.look(START, [("t", "a", 1000)])
    ledger.look(START + later, [("t", "a", 1000)])
    assert ledger.stored("t", since=0, until=2**40) == []


def test_a_look_that_crosses_the_hour_is_split(ledger):
    ledger.look(START - 100, [("t", "a", 10)])
    ledger.look(START + 200, [("t", "a", 10)])
    found = ledger.stored("t", since=0, until=2**40)
    assert [(one.hour, one.byte_s) for one in found] == [(START - HOUR_S, 1000), (START, 2000)]


def test_what_was_noted_is_there_after_a_restart_and_for_the_owner_alone(tmp_path):
    path = tmp_path / "storage.db"
    StorageLedger(path).look(START, [("t", "a", 10)])
    StorageLedger(path).look(START + 100, [])
    assert [one.byte_s for one in StorageLedger(path).stored("t", since=0, until=2**40)] == [1000]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.integers(0, 2**50), st.floats(1e9, 2e9), st.floats(0, LONGEST_S))
def test_the_hours_of_an_interval_make_it_up(size, since, length):
    found = list(by_hour(size, since, since + length))
    whole = size * (round((since + length) * 1000) - round(since * 1000)) // 1000
    assert whole - len(found) <= sum(byte_s for _, byte_s in found) <= whole
    assert all(hour % HOUR_S == 0 for hour, _ in found)
