from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isopod.model.schedule import check_schedule, due_of, next_after

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text", ["*/5 * * * *", "0 3 * * *", "0 0 1 JAN *", "15 14 1,15 * MON-FRI", "0 0 29 2 *"]
)
def test_cron_lines_are_taken(text):
    assert check_schedule(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* 24 * * *", "* * 0 * *"),
        *("* * * 13 *", "* * * * 8", "*/0 * * * *", "a * * * *", "5-1 * * * *", "* * 30 2 *"),
        *("* * * * 1#2/3", "1/" * 40 + "1 * * * *", "9" * 99 + " * * * *", "* * * * *" + " " * 99),
        *("0 0 * * 5#9", "٣ * * * *", "*\n* * * 7L/x"),
    ],
)
def test_a_wrong_cron_line_is_refused(text):
    with pytest.raises(ValueError, match=r"must be five cron fields|never comes"):
        check_schedule(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/-,L#W MONJA", max_size=40))
def test_whatever_is_taken_has_a_next_time(text):
    try:
        check_schedule(text)
    except ValueError:
        return
    assert next_after(text, NOON) > NOON


def test_times_are_utc():
    assert next_after("0 3 * * *", NOON) == NOON + 15 * 3600


def due(late_s: float, *, schedule: str = "*/5 * * * *", since_s: float = 0.0):
    return due_of(schedule, next_at=NOON, now=NOON + since_s, late_s=late_s)


def test_a_job_that_is_due_runs_and_is_due_again():
    found = due(60, since_s=1)
    assert (found.run, found.missed, found.next_at) == (NOON, 0, NOON + 300)


def test_a_job_that_is_a_little_late_runs_and_what_was_before_is_missed():
    found = due(60, since_s=630)  # due at 0, 300 and 600
    assert (found.run, found.missed, found.last_missed) == (NOON + 600, 2, NOON + 300)
    assert found.next_at == NOON + 900


def test_a_job_that_is_much_too_late_is_missed_and_not_run():
    found = due(60, since_s=299)
    assert (found.run, found.missed, found.last_missed) == (None, 1, NOON)


def test_a_year_of_missed_minutes_is_not_counted_one_by_one():
    found = due(60, schedule="* * * * *", since_s=365 * 86_400 + 5)
    assert found.missed == 999
    assert found.run == NOON + 365 * 86_400
    assert found.next_at == found.run + 60


@settings(deadline=None)
@given(st.floats(0, 1e5))
def test_no_time_is_lost_or_counted_twice(since_s):
    found = due(60, since_s=since_s)
    assert found.missed + (found.run is not None) == int(since_s // 300) + 1
    assert NOON + since_s < found.next_at <= NOON + since_s + 300
