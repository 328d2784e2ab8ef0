"""Jobs of live versions: when each is due, and a row for each run.

A run's row is its claim: it is added in the transaction that moves the job's time on, and there is
one for a time and an attempt, so of several that look at the clock one runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    Row,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from isopod.model.ids import AppName
from isopod.model.job import Outcome, Run, Trigger
from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import apps, job_runs, jobs

KEPT_RUNS = 200  # of one job
_RUN = [column for column in job_runs.c if column.name != "app"]


@dataclass(frozen=True, slots=True)
class Timed:
    """A job and its time."""

    name: str
    schedule: str
    next_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class DueJob:
    """One that is due, of any tenant."""

    tenant: TenantName
    app: AppName  # its label
    job: Timed


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run is known by before it ends."""

    job: str
    due_at: float
    trigger: Trigger
    version: int
    attempt: int = 1


class Jobs:
    """The jobs of one tenant's apps, by the app's label."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def of_app(self, label: AppName) -> list[Timed]:
        """By name."""
        found = select(jobs).where(jobs.c.app == label, self._mine(label)).order_by(jobs.c.name)
        with self._reading() as db:
            rows = db.execute(found).all()
        return [Timed(row.name, row.schedule, row.next_at) for row in rows]

    def put(self, label: AppName, timed: Iterable[Timed]) -> None:
        """These, and no others. One whose schedule is as before keeps its time: a deploy just
        before it is due must not skip it."""
        before = {one.name: one for one in self.of_app(label)}
        with self._writing() as db:
            if not db.execute(select(self._mine(label))).scalar_one():
                return
            db.execute(delete(jobs).where(jobs.c.app == label))
            for one in timed:
                known = before.get(one.name)
                same = known is not None and known.schedule == one.schedule
                at = known.next_at if same and known else one.next_at
                values = {"name": one.name, "schedule": one.schedule, "next_at": at}
                db.execute(insert(jobs).values(app=label, **values))

    def move(self, label: AppName, job: Timed, *, next_at: float) -> bool:
        """Whether its time was still what `job` says; then it is `next_at` now."""
        same = (jobs.c.app == label) & (jobs.c.name == job.name) & (jobs.c.next_at == job.next_at)
        with self._writing() as db:
            moved = db.execute(update(jobs).where(same, self._mine(label)).values(next_at=next_at))
            return bool(moved.rowcount)

    def begin(self, label: AppName, claim: Claim, *, now: float) -> int | None:
        """The run's id; None when somebody else has it, or the app is gone."""
        return self._add(label, claim, outcome="running", message="", now=now, ended_at=None)

    def note(self, label: AppName, claim: Claim, *, outcome: str, message: str, now: float) -> None:
        """Of a run that does not take place."""
        self._add(label, claim, outcome=outcome, message=message, now=now, ended_at=now)

    def end(self, label: AppName, run: int, outcome: Outcome, *, now: float) -> None:
        mine = (job_runs.c.id == run) & (job_runs.c.app == label) & job_runs.c.ended_at.is_(None)
        with self._writing() as db:
            db.execute(
                update(job_runs)
                .where(mine, self._mine(label))
                .values(
                    ended_at=now,
                    outcome=outcome.code,
                    message=outcome.message,
                    status=outcome.status,
                    request_id=outcome.request_id,
                    cpu_ms=outcome.cpu_ms,
                )
            )

    def runs(self, label: AppName, *, job: str = "", limit: int) -> list[Run]:
        """Newest first; `job` "": of all jobs."""
        found = select(*_RUN).where(job_runs.c.app == label, self._mine(label))
        if job:
            found = found.where(job_runs.c.job == job)
        with self._reading() as db:
            return [
                _run(row) for row in db.execute(found.order_by(job_runs.c.id.desc()).limit(limit))
            ]

    def newest(self, label: AppName) -> dict[str, Run]:
        """Of each job."""
        ids = select(func.max(job_runs.c.id)).where(job_runs.c.app == label)
        found = select(*_RUN).where(
            job_runs.c.id.in_(ids.group_by(job_runs.c.job)), self._mine(label)
        )
        with self._reading() as db:
            return {run.job: run for run in map(_run, db.execute(found))}

    def run(self, label: AppName, number: int) -> Run | None:
        found = select(*_RUN).where(
            job_runs.c.id == number, job_runs.c.app == label, self._mine(label)
        )
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _run(row)

    def _mine(self, label: AppName) -> Exists:
        return exists().where(apps.c.name == label, apps.c.tenant == self._tenant)

    def _add(
        self,
        label: AppName,
        claim: Claim,
        *,
        outcome: str,
        message: str,
        now: float,
        ended_at: float | None,
    ) -> int | None:
        this = (job_runs.c.app == label) & (job_runs.c.job == claim.job)
        there = this & (job_runs.c.due_at == claim.due_at) & (job_runs.c.attempt == claim.attempt)
        with self._writing() as db:
            if not db.execute(select(self._mine(label))).scalar_one():
                return None
            if db.execute(select(job_runs.c.id).where(there)).one_or_none():
                return None
            added = db.execute(
                insert(job_runs).values(
                    app=label,
                    job=claim.job,
                    due_at=claim.due_at,
                    attempt=claim.attempt,
                    trigger=claim.trigger,
                    version=claim.version,
                    started_at=now,
                    ended_at=ended_at,
                    outcome=outcome,
                    message=message,
                    status=0,
                    request_id="",
                    cpu_ms=0.0,
                )
            )
            _prune(db, this)
            return int(added.inserted_primary_key[0])  # type: ignore[index]


class AnyJobs:
    """Of every tenant: for the node's clock."""

    def __init__(self, reading: Connect, writing: Connect) -> None:
        self._reading, self._writing = reading, writing

    def due(self, now: float, *, limit: int) -> list[DueJob]:
        """The longest due first, of each tenant as many as of the others: one that has thousands
        must not make others' late."""
        turn = func.row_number().over(partition_by=apps.c.tenant, order_by=jobs.c.next_at)
        found = (
            select(apps.c.tenant, jobs)
            .join(apps, apps.c.name == jobs.c.app)
            .where(jobs.c.next_at <= now)
            .order_by(turn, jobs.c.next_at)
            .limit(limit)
        )
        with self._reading() as db:
            rows = db.execute(found).all()
        return [
            DueJob(
                TenantName(row.tenant),
                AppName(row.app),
                Timed(row.name, row.schedule, row.next_at),
            )
            for row in rows
        ]

    def interrupt(self, *, now: float) -> list[tuple[TenantName, AppName, Run]]:
        """End the runs that a control process before this one left: who ran them has stopped them
        when it went away."""
        under_way = job_runs.c.ended_at.is_(None)
        found = select(apps.c.tenant, job_runs).join(apps, apps.c.name == job_runs.c.app)
        message = "the control process ended meanwhile"
        values = {"ended_at": now, "outcome": "interrupted", "message": message}
        with self._writing() as db:
            rows = db.execute(found.where(under_way)).all()
            if rows:
                db.execute(update(job_runs).where(under_way).values(**values))
        return [(TenantName(row.tenant), AppName(row.app), _run(row)) for row in rows]


def _prune(db: Connection, this: ColumnElement[bool]) -> None:
    kept = select(job_runs.c.id).where(this).order_by(job_runs.c.id.desc()).limit(1)
    last = db.execute(kept.offset(KEPT_RUNS)).scalar_one_or_none()
    if last is not None:
        db.execute(delete(job_runs).where(this, job_runs.c.id <= last))


def _run(row: Row[tuple[object, ...]]) -> Run:
    values = {name: row._mapping[name] for name in Run.__slots__}
    return Run(**values)
