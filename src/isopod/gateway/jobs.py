"""What control has a worker do for an app beside its visitors' requests: its jobs, and the commands
that a new version runs before it goes live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from isopod.errors import IsopodError
from isopod.gateway.job_request import Serve, request_job
from isopod.model.job import Job, Outcome
from isopod.model.route import Route


class JobRunner:
    """`serve` is the worker's gateway."""

    def __init__(
        self, *, serve: Serve, find_route: Callable[[str], Route | None], domain: str
    ) -> None:
        self._serve, self._find_route, self._domain = serve, find_route, domain

    async def run(self, asked: dict[str, Any], gone: asyncio.Event) -> dict[str, Any]:
        """{"app": label, "job": as `Job.to_json`}; gives an `Outcome`."""
        try:
            outcome = await self._run(str(asked["app"]), Job.from_json(asked["job"]), gone)
        except IsopodError as error:
            outcome = Outcome(error.code, error.message)
        return outcome.to_json()

    async def _run(self, app: str, job: Job, gone: asyncio.Event) -> Outcome:
        return await request_job(
            self._serve,
            host=f"{app}.{self._domain}",
            job=job.name,
            path=job.path,
            timeout_s=job.timeout_s,
            gone=gone,
        )
