"""Running a job: one run of it at a time, by one worker, again when it failed and may be retried.

What is under way is known here, in control's memory, and written down as a row of state. A run is
bound to the connection over which its worker was asked: when this process ends, the worker stops
it, and the next process finds a row without an end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from isopod.control.log_writing import say
from isopod.control.node import Node
from isopod.control.workers import Workers
from isopod.errors import IsopodError
from isopod.model.ids import AppName
from isopod.model.job import Job, Outcome, Run
from isopod.model.tenant import TenantName
from isopod.state.jobs import Claim

_FIRST_RETRY_S = 5.0
_LAST_RETRY_S = 300.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that was claimed. `app` is the label."""

    tenant: TenantName
    app: AppName
    job: Job
    claim: Claim
    run: int


def start(begun: Begun, *, node: Node) -> None:
    """Go on in the background. The job must be reserved."""
    node.jobs.keep(begun.app, begun.job.name, _attempts(begun, node))


def retry_delay_s(attempt: int) -> float:
    """After attempt 1, 2, 3...: 5, 10, 20... seconds, at most five minutes."""
    return float(min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(attempt - 1, 10)))


def resume(tenant: TenantName, app: AppName, interrupted: Run, *, node: Node) -> None:
    """After a control process that ended while a run was under way. As `start`."""
    message = f"job {interrupted.job!r} was interrupted: the control process ended"
    say(node, tenant, app, message, version=interrupted.version)
    claim = Claim(
        job=interrupted.job,
        due_at=interrupted.due_at,
        trigger=interrupted.trigger,
        version=interrupted.version,
        attempt=interrupted.attempt,
    )
    node.jobs.keep(app, interrupted.job, _go_on(tenant, app, claim, node))


async def _go_on(tenant: TenantName, app: AppName, claim: Claim, node: Node) -> None:
    begun = await _again(tenant, app, claim, node)
    if begun is not None:
        await _attempts(begun, node)


async def _attempts(begun: Begun, node: Node) -> None:
    now: Begun | None = begun
    while now is not None:
        outcome = await _run(now, node)
        await asyncio.to_thread(_end, now, outcome, node)
        if outcome.code == "ok":
            return
        now = await _again(now.tenant, now.app, now.claim, node)


async def _run(begun: Begun, node: Node) -> Outcome:
    try:
        async with node.jobs.turns.turn(begun.tenant):
            # A request is handed over; a command is run where it is asked for.
            own = node.routes.behind(begun.app) if begun.job.command else None
            return await ask_worker(node.workers, app=begun.app, job=begun.job, own=own)
    except IsopodError as error:
        return Outcome(error.code, error.message)


async def ask_worker(
    workers: Workers, *, app: str, job: Job, own: TenantName | None, **more: Any
) -> Outcome:
    """Let a worker run it: the one that is the tenant `own`'s, or a shared one. `app` is the
    label."""
    question = {"op": "run", "app": app, "job": job.to_json(), **more}
    # The worker keeps the time; this is for one that does not answer at all.
    return await workers.run(question, own=own, within_s=2 * job.timeout_s + 60.0)


def _end(begun: Begun, outcome: Outcome, node: Node) -> None:
    jobs = node.state.of(begun.tenant).jobs
    jobs.end(begun.app, begun.run, outcome, now=node.clock())
    if outcome.code != "ok":
        number = f", attempt {begun.claim.attempt}" if begun.claim.attempt > 1 else ""
        text = f"job {begun.job.name!r} failed{number}: {outcome.code}"
        if outcome.message:
            text += f": {outcome.message}"
        version, request_id = begun.claim.version, outcome.request_id
        whose = (begun.tenant, begun.app)
        say(node, *whose, text, version=version, level="error", request_id=request_id)


async def _again(tenant: TenantName, app: AppName, claim: Claim, node: Node) -> Begun | None:
    """The next attempt, when its time has come; None: it has no more, or the job is gone."""
    job = await asyncio.to_thread(_live_job, tenant, app, claim.job, node)
    if job is None or claim.attempt > job[0].retries:
        return None
    await asyncio.sleep(retry_delay_s(claim.attempt))
    return await asyncio.to_thread(_begin_again, tenant, app, claim, node)


def _begin_again(tenant: TenantName, app: AppName, claim: Claim, node: Node) -> Begun | None:
    found = _live_job(tenant, app, claim.job, node)  # another version may be live by now
    if found is None:
        return None
    job, version = found
    following = replace(claim, attempt=claim.attempt + 1, trigger="retry", version=version)
    run = node.state.of(tenant).jobs.begin(app, following, now=node.clock())
    return None if run is None else Begun(tenant, app, job, following, run)


def _live_job(tenant: TenantName, label: AppName, name: str, node: Node) -> tuple[Job, int] | None:
    mine = node.state.of(tenant)
    app = mine.apps.labelled(label)
    live = mine.versions.get(label, app.live_version) if app else None
    if live is None:
        return None
    return next(((job, live.number) for job in live.spec.jobs if job.name == name), None)
