"""Dates as people give them, in UTC, as the intervals that are billed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from isopod.errors import UsageError

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|\+00:00)?")
_MONTH = re.compile(r"(\d{4})-(\d\d)")
_HINT = "write a date, 2026-11-01, or a moment in UTC, 2026-11-01T08:30Z"


def parse_period(since: str, until: str, *, now: float) -> tuple[int, int]:
    """[from, to) in seconds since the epoch. "" is the start of this month, and now.

    A date as the end includes that day; a moment does not include itself. UsageError.
    """
    today = datetime.fromtimestamp(now, UTC)
    first = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = _parse("from", since) if since else first
    end = _parse("to", until) if until else datetime.fromtimestamp(int(now) + 1, UTC)
    if until and _DATE.fullmatch(until):
        end += timedelta(days=1)
    if start >= end:
        shown = (until or "now, which is the default").strip()
        raise UsageError(
            f"from {since or start.date().isoformat()!r} is not before to {shown!r}",
            hint="times are in UTC; a date given as `to` includes that day",
        )
    return int(start.timestamp()), int(end.timestamp())


def parse_month(text: str) -> tuple[int, int]:
    """A calendar month as [from, to). UsageError."""
    found = _MONTH.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) < 9999:
        raise UsageError(f"{text[:40]!r} is not a month", hint="write it as 2026-11")
    year, month = int(found[1]), int(found[2])
    after = (year + 1, 1) if month == 12 else (year, month + 1)
    start, end = (datetime(*first, 1, tzinfo=UTC) for first in ((year, month), after))
    return int(start.timestamp()), int(end.timestamp())


def next_month(now: float) -> int:
    """When the month that begins after `now` does."""
    return parse_month(datetime.fromtimestamp(now, UTC).strftime("%Y-%m"))[1]


def _parse(name: str, text: str) -> datetime:
    if not (_DATE.fullmatch(text) or _MOMENT.fullmatch(text)):
        raise UsageError(f"{name} {text[:40]!r} is neither a date nor a moment", hint=_HINT)
    try:
        found = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as bad:
        raise UsageError(f"{name} {text!r}: {bad}", hint=_HINT) from bad
    if not 1970 <= found.year < 9999:
        raise UsageError(f"{name} {text!r} is no time of a bill", hint=_HINT)
    return found
