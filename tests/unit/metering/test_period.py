from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import UsageError
from isopod.metering.period import parse_month, parse_period

NOW = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC).timestamp()


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("since", "until", "start", "end"),
    [
        ("", "", "2026-11-01", "2026-11-21T12:30:16"),
        ("2026-11-20", "", "2026-11-20", "2026-11-21T12:30:16"),
        ("2026-11-01", "2026-11-30", "2026-11-01", "2026-12-01"),
        ("2026-11-20", "2026-11-20", "2026-11-20", "2026-11-21"),
        ("2026-11-20T08:30Z", "2026-11-20T09:00:30", "2026-11-20T08:30", "2026-11-20T09:00:30"),
        ("2026-11-20T08:30+00:00", "2026-11-20", "2026-11-20T08:30", "2026-11-21"),
    ],
)
def test_a_date_as_the_end_includes_its_day_and_a_moment_does_not(since, until, start, end):
    assert parse_period(since, until, now=NOW) == (at(start), at(end))


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("2026-11-31", "", "from '2026-11-31': day"),
        ("21.11.2026", "", "from '21.11.2026' is neither a date nor a moment"),
        ("", "yesterday", "to 'yesterday' is neither"),
        ("2026-W01", "", "neither"),
        ("2026-11-20T08:30+02:00", "", "neither"),
        ("0001-01-01", "", "no time of a bill"),
        ("", "9999-12-31", "no time of a bill"),
        ("2026-11-21", "2026-11-20", "from '2026-11-21' is not before to '2026-11-20'"),
        ("2026-11-21T08:00", "2026-11-21T08:00", "is not before"),
        ("2027-01-01", "", "is not before to 'now, which is the default'"),
    ],
)
def test_what_is_wrong_with_a_period_is_said(since, until, said):
    with pytest.raises(UsageError, match=said):
        parse_period(since, until, now=NOW)


def test_a_month_is_a_whole_one():
    assert parse_month("2026-11") == (at("2026-11-01"), at("2026-12-01"))
    assert parse_month("2026-12") == (at("2026-12-01"), at("2027-01-01"))


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "2026", "2026-1", "0000-01", "9999-01", ""])
def test_what_is_no_month_is_refused(text):
    with pytest.raises(UsageError, match="is not a month"):
        parse_month(text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_period_or_a_clear_error(since, until):
    try:
        start, end = parse_period(since, until, now=NOW)
    except UsageError as error:
        assert error.message
    else:
        assert start < end
