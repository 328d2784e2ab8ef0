"""Jobs, as a caller sees them: what an app has, what its runs came to, and running one by hand."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from isopod.control.apps import find_app, live_apps
from isopod.control.audit import audited, entry
from isopod.control.job_runs import Begun, start
from isopod.control.node import Node
from isopod.errors import AppNotFound, JobNotFound, JobUnderWay
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.job import Job, Run
from isopod.model.principal import Principal
from isopod.state.apps import App
from isopod.state.jobs import Claim

MAX_RUNS = 1000  # in one answer
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class JobSummary:
    """Times are seconds since the epoch."""

    app: str
    name: str
    schedule: str  # cron, UTC
    path: str  # "" when it is a command
    command: str
    timeout_s: float
    retries: int
    next_at: float | None
    last: Run | None  # the newest, which may be one that was missed


async def list_jobs(who: Principal, app: AppName | None, *, node: Node) -> list[JobSummary]:
    """Of the live versions of all apps, or of one. AppNotFound."""
    who.need("read")
    if app is not None:
        await find_app(who, app, node=node)
    return await asyncio.to_thread(_list, who, app, node)


def _list(who: Principal, name: AppName | None, node: Node) -> list[JobSummary]:
    found: list[JobSummary] = []
    jobs = node.state.of(who.tenant).jobs
    for app, live in live_apps(who.tenant, node=node):
        if not live.spec.jobs or (name is not None and app.name != name):
            continue
        newest = jobs.newest(app.label)
        times = {one.name: one.next_at for one in jobs.of_app(app.label)}
        for job in live.spec.jobs:
            found.append(
                JobSummary(
                    app=app.name,
                    name=job.name,
                    schedule=job.schedule,
                    path=job.path,
                    command=job.command,
                    timeout_s=job.timeout_s,
                    retries=job.retries,
                    next_at=times.get(job.name),
                    last=newest.get(job.name),
                )
            )
    return found


async def list_runs(who: Principal, app: AppName, job: str, *, limit: int, node: Node) -> list[Run]:
    """Newest first; `job` "": of all its jobs, also of those that its live version has no more.
    AppNotFound."""
    who.need("read")
    found = await find_app(who, app, node=node)
    jobs = node.state.of(who.tenant).jobs
    return await asyncio.to_thread(jobs.runs, found.label, job=job, limit=min(limit, MAX_RUNS))


async def get_run(who: Principal, app: AppName, number: str, *, node: Node) -> Run:
    """AppNotFound, JobNotFound; also when `number` is none."""
    who.need("read")
    found = await find_app(who, app, node=node)
    run = None
    if _NUMBER.fullmatch(number):
        jobs = node.state.of(who.tenant).jobs
        run = await asyncio.to_thread(jobs.run, found.label, int(number))
    if run is None:
        raise JobNotFound(f"app {app!r} has no run {number[:40]!r}")
    return run


async def run_job(who: Principal, app: AppName, name: str, *, node: Node) -> Run:
    """Start a run now; it goes on by itself. AppNotFound, JobNotFound, JobUnderWay."""
    async with audited(who, "job.run", f"{app}/{name}", node=node):
        who.need("deploy")
        found = await find_app(who, app, node=node)
        job, live = await asyncio.to_thread(_live_job, who, found, name, node)
        if not node.jobs.reserve(found.label, name):
            raise JobUnderWay(f"job {name!r} of app {app!r} is under way")
        begun = None
        try:
            begun = await asyncio.to_thread(_begin, who, found, job, live, node)
        finally:
            if begun is None:
                node.jobs.release(found.label, name)
        if begun is None:
            raise AppNotFound(f"there is no app {app!r}")
        start(begun, node=node)
    run = await asyncio.to_thread(node.state.of(who.tenant).jobs.run, found.label, begun.run)
    if run is None:
        raise JobNotFound(f"app {app!r} is gone")
    return run


def _live_job(who: Principal, app: App, name: str, node: Node) -> tuple[Job, AppVersion]:
    live = node.state.of(who.tenant).versions.get(app.label, app.live_version)
    for job in live.spec.jobs if live else ():
        if job.name == name and live is not None:
            return job, live
    raise JobNotFound(
        f"app {app.name!r} has no job {name[:40]!r}",
        hint=f"`isopod jobs list {app.name}` lists them",
    )


def _begin(who: Principal, app: App, job: Job, live: AppVersion, node: Node) -> Begun | None:
    now = node.clock()
    claim = Claim(job.name, now, "hand", live.number)
    with node.state.transaction() as t:
        mine = t.of(who.tenant)
        run = mine.jobs.begin(app.label, claim, now=now)
        mine.audit.add(entry(who, "job.run", f"{app.name}/{job.name}", now))
    return None if run is None else Begun(who.tenant, app.label, job, claim, run)
