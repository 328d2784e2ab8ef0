"""Starts jobs when they are due, and tells which were missed.

A job's time is a row of state. Whoever moves it on, in a transaction, has the run: so a restart of
this process, or a second one, neither runs a job twice nor forgets one.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from isopod.control.job_runs import Begun, resume, start
from isopod.control.log_writing import say
from isopod.control.node import Node
from isopod.errors import DiskFull, IsopodError, StateBusy
from isopod.model.app import AppVersion
from isopod.model.schedule import Due, due_of
from isopod.state.handles import Handles
from isopod.state.jobs import Claim, DueJob

_log = logging.getLogger("isopod.jobs")
_LOOK_S = 1.0
# A run that is this late still takes place: a node that is started again misses none for it.
LATE_S = 60.0
_AT_ONCE = 200
_SET_ASIDE_S = 3600.0


async def run_jobs(node: Node) -> None:
    """Until cancelled; then what is under way ends too."""
    interrupted = None
    try:
        while True:
            try:
                if interrupted is None:
                    now = node.clock()
                    interrupted = await asyncio.to_thread(node.state.node.jobs.interrupt, now=now)
                    for tenant, app, run in interrupted:
                        if node.jobs.reserve(app, run.job):
                            resume(tenant, app, run, node=node)
                await start_due(node)
            except IsopodError as bad:  # a full disk, say: the next look may do better
                _log.error("jobs could not be started: %s", bad)
            except Exception:  # else no job of anybody's would run any more, without a word
                _log.exception("jobs could not be started")
            await asyncio.sleep(_LOOK_S)
    finally:
        await node.jobs.stop()


async def start_due(node: Node) -> int:
    """One look at the clock; how many runs began."""
    now = node.clock()
    due = await asyncio.to_thread(node.state.node.jobs.due, now, limit=_AT_ONCE)
    started = 0
    for one in due:
        free = node.jobs.reserve(one.app, one.job.name)
        begun = None
        try:
            begun = await asyncio.to_thread(_claim, one, not free, now, node)
        except (DiskFull, StateBusy):
            raise
        except Exception:  # of one app, whose row is damaged: others' jobs must go on
            _log.exception("job %r of app %r is set aside", one.job.name, one.app)
            await asyncio.to_thread(_set_aside, one, now, node)
        finally:
            if free and begun is None:
                node.jobs.release(one.app, one.job.name)
        if begun is not None:
            start(begun, node=node)
            started += 1
    return started


def _set_aside(one: DueJob, now: float, node: Node) -> None:
    node.state.of(one.tenant).jobs.move(one.app, one.job, next_at=now + _SET_ASIDE_S)


def _claim(one: DueJob, busy: bool, now: float, node: Node) -> Begun | None:
    said: list[str] = []
    with node.state.transaction() as t:
        mine = t.of(one.tenant)
        try:
            due = due_of(one.job.schedule, next_at=one.job.next_at, now=now, late_s=LATE_S)
        except Exception:  # of a library that accepted it once; others' jobs must go on
            _log.exception("job %r of app %r has a schedule that fails", one.job.name, one.app)
            mine.jobs.move(one.app, one.job, next_at=now + _SET_ASIDE_S)
            return None
        live = _live(one, t)
        moved = mine.jobs.move(one.app, one.job, next_at=due.next_at)
        if live is None or not moved:
            return None
        begun = _enter(one, due, busy, live, t, now, said)
    for message in said:
        say(node, one.tenant, one.app, message, version=live.number)
    return begun


def _live(one: DueJob, t: Handles) -> AppVersion | None:
    mine = t.of(one.tenant)
    app = mine.apps.labelled(one.app)
    return mine.versions.get(one.app, app.live_version) if app else None


def _enter(
    one: DueJob,
    due: Due,
    busy: bool,
    live: AppVersion,
    t: Handles,
    now: float,
    said: list[str],
) -> Begun | None:
    """Rows for what is run, and for what is not; `said` gets what the app's log is to say."""
    jobs, name = t.of(one.tenant).jobs, one.job.name
    if due.last_missed is not None:
        times = "1 time" if due.missed == 1 else f"{due.missed:,} times"
        message = f"missed {times}, last at {_utc(due.last_missed)}: the node was not there"
        claim = Claim(name, due.last_missed, "schedule", live.number)
        jobs.note(one.app, claim, outcome="missed", message=message, now=now)
        said.append(f"job {name!r} {message}")
    if due.run is None:
        return None
    claim = Claim(name, due.run, "schedule", live.number)
    if busy:
        message = "the run before it was still under way"
        jobs.note(one.app, claim, outcome="skipped", message=message, now=now)
        said.append(f"job {name!r} was skipped at {_utc(due.run)}: {message}")
        return None
    job = next((job for job in live.spec.jobs if job.name == name), None)
    run = None if job is None else jobs.begin(one.app, claim, now=now)
    return None if job is None or run is None else Begun(one.tenant, one.app, job, claim, run)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
