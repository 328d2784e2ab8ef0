"""Logs are kept for a time: what is older goes, whether its app still prints or not.

By size a log is bounded by the workers that write it. By age it is done here, with whole files and
renames only, because workers append meanwhile: so a line may lie on the disk for up to twice as
long as it is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from isopod.control.log_files import open_log
from isopod.control.node import Node
from isopod.settings import NodeSettings

_log = logging.getLogger("isopod.storage")
_EVERY_S = 900.0
_FIRST_LINE = 128 << 10  # as a rule; a longer one has the age of its file


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds since the newest line of `.1`, and since the oldest and the newest of the current
    file; None: there is no such file."""

    before: float | None
    oldest: float | None
    newest: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    remove_before: bool = False
    remove_current: bool = False
    rotate: bool = False


def plan(ages: Ages, keep_s: float) -> Plan:
    """A file goes when its newest line is too old. One that holds a line too old is set aside, as
    soon as that costs no younger one."""
    remove_before = ages.before is not None and ages.before > keep_s
    if ages.newest is not None and ages.newest > keep_s:
        return Plan(remove_before, remove_current=True)
    old = ages.oldest is not None and ages.oldest > keep_s
    return Plan(remove_before, rotate=old and (ages.before is None or remove_before))


async def keep_logs(node: Node) -> None:
    """Until cancelled. A log that cannot be looked at is left to the next round."""
    keep_s = node.settings.log_keep_h * 3600.0
    while keep_s:
        for folder in logs_dirs(node.settings):
            await asyncio.to_thread(forget_old_lines, folder, keep_s, time.time())
        await asyncio.sleep(_EVERY_S)


def logs_dirs(settings: NodeSettings) -> list[Path]:
    """Of the shared workers, and of each tenant's own."""
    return [settings.logs_dir, *sorted(settings.cordons_dir.glob("*/logs"))]


def forget_old_lines(folder: Path, keep_s: float, now: float) -> None:
    """One round over all logs in `folder`."""
    try:
        names = {path.name.removesuffix(".1") for path in folder.iterdir()}
    except FileNotFoundError:  # a tenant's own, which went just now
        return
    for name in sorted(name for name in names if name.endswith(".jsonl")):
        try:
            _forget(folder / name, keep_s, now)
        except OSError as bad:
            _log.warning("cannot tidy %s: %s", folder / name, bad.strerror)


def _forget(current: Path, keep_s: float, now: float) -> None:
    before = current.with_name(f"{current.name}.1")
    todo = plan(_ages(before, current, now), keep_s)
    if todo.remove_before:
        before.unlink(missing_ok=True)
    if todo.remove_current:
        current.unlink(missing_ok=True)
    elif todo.rotate:
        # Workers see within a second that the file has moved, and followers read it to its end.
        current.rename(before)


def _ages(before: Path, current: Path, now: float) -> Ages:
    ages: dict[str, float] = {}
    with contextlib.suppress(FileNotFoundError):
        ages["before"] = now - before.lstat().st_mtime
    with contextlib.suppress(FileNotFoundError):
        written = now - current.lstat().st_mtime
        ages["newest"] = ages["oldest"] = written
        ages["oldest"] = now - _first_at(current, now - written)
    return Ages(ages.get("before"), ages.get("oldest"), ages.get("newest"))


def _first_at(path: Path, otherwise: float) -> float:
    """When its first line was written."""
    try:
        with open_log(path) as file:
            line = file.read(_FIRST_LINE).partition(b"\n")[0]
        return float(orjson.loads(line)["at"])
    except (ValueError, KeyError, TypeError, OSError):
        return otherwise
