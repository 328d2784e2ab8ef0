"""What control has a worker do for an app beside its visitors' requests: its jobs, and the commands
that a new version runs before it goes live."""

from __future__ import annotations

import asyncio
import functools
import shlex
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from isopod.errors import AppUnknown, IsopodError, WorkerUnavailable
from isopod.gateway.commands import Commands
from isopod.gateway.job_request import Serve, request_job
from isopod.gateway.lines import Peer
from isopod.model.job import Job, Outcome
from isopod.model.route import Route
from isopod.runtimes.guest import Guest, OutputSink


class MakeCommand(Protocol):
    """Makes the guest of a command. `known_as`: the app that the network takes it for."""

    def __call__(
        self, route: Route, output: OutputSink, *, words: tuple[str, ...], known_as: str
    ) -> Awaitable[tuple[Guest, Callable[[], None]]]: ...


class JobRunner:
    """`serve` is the worker's gateway. `find_route` looks into the table itself: a version that is
    not live yet is there under a name that no visitor can ask for."""

    def __init__(
        self,
        *,
        serve: Serve,
        commands: Commands,
        make: MakeCommand,
        find_route: Callable[[str], Route | None],
        elsewhere: Callable[[Route], Peer | None],
        domain: str,
    ) -> None:
        self._serve, self._commands, self._make = serve, commands, make
        self._find_route, self._elsewhere, self._domain = find_route, elsewhere, domain

    async def run(self, asked: dict[str, Any], gone: asyncio.Event) -> dict[str, Any]:
        """{"app": label, "job": as `Job.to_json`, "known_as": the name of its route, if that is
        another}; gives an `Outcome`. "elsewhere": that worker is to be asked."""
        try:
            label, job = str(asked["app"]), Job.from_json(asked["job"])
            if job.command:
                known_as = str(asked.get("known_as", label))
                outcome = await self._command(label, known_as, job, gone)
            else:
                outcome = await request_job(
                    self._serve,
                    host=f"{label}.{self._domain}",
                    job=job.name,
                    path=job.path,
                    timeout_s=job.timeout_s,
                    gone=gone,
                )
        except IsopodError as error:
            outcome = Outcome(error.code, error.message)
        return outcome.to_json()

    async def _command(self, label: str, known_as: str, job: Job, gone: asyncio.Event) -> Outcome:
        route = self._find_route(known_as)
        if route is None or route.name != label:
            raise AppUnknown(f"there is no app {label!r}")
        other = self._elsewhere(route)
        if isinstance(other, int):  # who has its volumes
            return Outcome("elsewhere", str(other))
        if other is not None:
            raise WorkerUnavailable("this app is answered by its tenant's own worker by now")
        words = tuple(shlex.split(job.command))
        make = functools.partial(self._make, words=words, known_as=known_as)
        return await self._commands.run(route, make, timeout_s=job.timeout_s, gone=gone)
