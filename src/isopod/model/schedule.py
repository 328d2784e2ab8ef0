"""When a job is due: cron's five fields (minute, hour, day of month, month, weekday), in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim

MAX_CHARS = 100
_FIELDS = 5
# A node that was down for long does not count each minute of it.
_COUNTED = 1000


def check_schedule(text: str) -> str:
    """Raises ValueError, saying what it has to be."""
    must = 'must be five cron fields, such as "*/5 * * * *" (UTC)'
    if len(text) > MAX_CHARS:
        raise ValueError(f"{must}, of {MAX_CHARS} characters at most")
    if len(text.split()) != _FIELDS:
        raise ValueError(must)
    try:
        next_after(text, datetime.now(UTC).timestamp())
    except StopIteration:
        raise ValueError("never comes") from None
    except Exception as error:  # the library asserts where a field makes no sense
        why = f": {str(error)[:1].lower()}{str(error)[1:]}" if str(error) else ""
        raise ValueError(must + why) from error
    return text


def next_after(schedule: str, at: float) -> float:
    """The first time after `at` (seconds since the epoch)."""
    return next(CronSim(schedule, datetime.fromtimestamp(at, UTC))).timestamp()


@dataclass(frozen=True, slots=True)
class Due:
    """What became of the times up to now: the one to run at, if any; how many were missed before
    it or with it, the last of these, and when to look again."""

    run: float | None
    missed: int
    last_missed: float | None
    next_at: float


def due_of(schedule: str, *, next_at: float, now: float, late_s: float) -> Due:
    """For a job that was due at `next_at`, which is past. The latest time is run if it is not more
    than `late_s` ago; every other one was missed."""
    times: list[float] = [next_at]
    while len(times) < _COUNTED and (after := next_after(schedule, times[-1])) <= now:
        times.append(after)
    latest = times[-1]
    if len(times) == _COUNTED:
        before = CronSim(schedule, datetime.fromtimestamp(now, UTC), reverse=True)
        latest = next(before).timestamp()
    coming = next_after(schedule, now)
    if now - latest > late_s:
        return Due(None, len(times), latest, coming)
    missed = times[:-1]
    return Due(latest, len(missed), missed[-1] if missed else None, coming)
