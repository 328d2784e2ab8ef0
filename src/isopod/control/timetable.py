"""Which version of an app is live decides which jobs it has: the two change together."""

from __future__ import annotations

from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.schedule import next_after
from isopod.state.handles import TenantHandles
from isopod.state.jobs import Timed


def set_live(name: AppName, version: AppVersion, *, mine: TenantHandles, now: float) -> None:
    """In the caller's transaction. Jobs that are new, or have another schedule, are due at their
    next time; those that were there keep theirs."""
    mine.apps.set_live(name, version.number)
    timed = [
        Timed(job.name, job.schedule, next_after(job.schedule, now)) for job in version.spec.jobs
    ]
    mine.jobs.put(version.app, timed)
