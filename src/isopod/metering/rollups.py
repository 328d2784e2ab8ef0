"""Sums of usage by minute, hour and day (UTC), which outlive the records they were made of.

Pure: the ledger keeps them, in the transaction that keeps the records. Minutes are kept as long as
the node's settings say, hours for `HOURS_KEPT`, days for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60, 3600, 86_400  # grains, in seconds
GRAINS = (MINUTE, HOUR, DAY)
HOURS_KEPT = 400  # days: a year, and time to dispute its last bill
# SQLite adds in 64 bits. What would be more stays there: a sum must not become a rounded number.
MOST = 2**63 - 1


@dataclass(slots=True)
class Sums:
    """What some invocations, starts and live instances used together.

    `cold_starts` are requests that waited for a start, `starts` those starts and all others.
    `errors` are requests that ended in an error of the node's (not a 500 that the app answered).
    `memory_byte_ms`: private memory times the time it was held, idle or not, each moment once.
    `peak_memory_bytes` is the highest of all, not a sum.
    """

    requests: int = 0
    cold_starts: int = 0
    starts: int = 0
    errors: int = 0
    cpu_ns: int = 0
    host_ns: int = 0
    wall_ns: int = 0  # of requests
    wait_ns: int = 0
    wall_100ms: int = 0  # of each request, rounded up to whole 100 ms
    memory_byte_ms: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    peak_memory_bytes: int = 0

    def add(self, other: Sums) -> None:
        for name in Sums.__slots__:
            if name != "peak_memory_bytes":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_memory_bytes = max(self.peak_memory_bytes, other.peak_memory_bytes)


@dataclass(frozen=True, slots=True)
class Key:
    """One row of one grain. `start` is a multiple of the grain, in seconds since the epoch."""

    tenant: str
    app: str
    version: int
    start: int


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of a grain that begin in [since, until)."""

    grain: int
    since: int
    until: int


def coarser(sums: Iterable[tuple[Key, Sums]], grain: int) -> dict[Key, Sums]:
    """The sums of a finer grain, added up by a coarser one."""
    found: dict[Key, Sums] = {}
    for key, one in sums:
        start = key.start - key.start % grain
        whole = Key(key.tenant, key.app, key.version, start)
        if whole not in found:
            found[whole] = Sums()
        found[whole].add(one)
    return found


def spans(
    since: float, until: float, *, minutes_from: float = 0.0, hours_from: float = 0.0
) -> list[Span]:
    """The fewest rows that make up [since, until), each moment once: minutes at the edges, hours,
    and days between. The interval is widened to whole minutes; where minutes are no longer kept
    (before `minutes_from`), to whole hours; before `hours_from` to whole days."""

    def grain(at: float) -> int:
        return finest(at, minutes_from=minutes_from, hours_from=hours_from)

    begin = _floor(since, grain(since))
    end = _ceil(until, grain(until))
    return list(_spans(begin, end, 2)) if begin < end else []


def _spans(begin: int, end: int, level: int) -> Iterator[Span]:
    grain = GRAINS[level]
    first, last = _ceil(begin, grain), _floor(end, grain)
    if level == 0 or first < last:
        if level and begin < first:
            yield from _spans(begin, first, level - 1)
        yield Span(grain, first, last)
        if level and last < end:
            yield from _spans(last, end, level - 1)
    else:
        yield from _spans(begin, end, level - 1)


def finest(at: float, *, minutes_from: float, hours_from: float) -> int:
    """The grain that is kept of a moment."""
    return MINUTE if at >= minutes_from else HOUR if at >= hours_from else DAY


def hours_kept_from(now: float) -> int:
    """The first hour that is kept, on a day: where no hours are kept, days answer."""
    return max(0, _floor(now, DAY) - HOURS_KEPT * DAY)


def widened(since: float, until: float, grain: int) -> Span:
    """The rows of one grain that [since, until) touches."""
    return Span(grain, _floor(since, grain), _ceil(until, grain))


def _floor(at: float, grain: int) -> int:
    return math.floor(at / grain) * grain


def _ceil(at: float, grain: int) -> int:
    return math.ceil(at / grain) * grain
