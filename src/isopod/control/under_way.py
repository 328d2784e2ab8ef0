"""The runs of jobs that this control process has under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from isopod.control.turns import Turns
from isopod.model.ids import AppName

_log = logging.getLogger("isopod.jobs")
# Of one tenant at once, and of all; the others wait. A job mostly waits itself.
_PER_TENANT, _AT_ONCE, _WAITING = 8, 64, 1000


class UnderWay:
    """By app (its label) and job: one run at a time, with its retries."""

    def __init__(self) -> None:
        self.turns = Turns(at_once=_AT_ONCE, per_tenant=_PER_TENANT, waiting=_WAITING, what="jobs")
        self._tasks: dict[tuple[AppName, str], asyncio.Task[None]] = {}
        self._reserved: set[tuple[AppName, str]] = set()

    def reserve(self, app: AppName, job: str) -> bool:
        """Whether it is the caller's now, who then calls `keep` or `release`; False: it runs, or
        somebody else is about to run it."""
        key = (app, job)
        if key in self._tasks or key in self._reserved:
            return False
        self._reserved.add(key)
        return True

    def release(self, app: AppName, job: str) -> None:
        self._reserved.discard((app, job))

    def keep(self, app: AppName, job: str, work: Coroutine[None, None, None]) -> None:
        """Run it in the background until it ends. It must be reserved."""
        key = (app, job)
        self._reserved.remove(key)
        task = self._tasks[key] = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("job %r of app %r: %s", job, app, error, exc_info=error)

        task.add_done_callback(ended)

    def cancel(self, app: AppName) -> None:
        """The app is gone."""
        for (label, _job), task in self._tasks.items():
            if label == app:
                task.cancel()

    async def stop(self) -> None:
        """Workers stop what nobody waits for."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
