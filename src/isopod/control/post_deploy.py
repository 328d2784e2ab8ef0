"""The commands that a version runs before it goes live: migrations, as a rule.

They run in a worker as the app: with the new version's files, settings, secrets and network. The
version's route is in the routes meanwhile under a name that no host name can be, because the
network's broker looks there for what an app may reach. What fails leaves the live version as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from isopod.control.job_runs import ask_worker
from isopod.control.node import Node, route_of
from isopod.errors import ERRORS, CommandFailed
from isopod.model.app import AppVersion
from isopod.model.build import Step
from isopod.model.ids import AppName
from isopod.model.job import Job, Outcome
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName
from isopod.state.apps import App

TIMEOUT_S = 600.0  # of one command
_STEP = "post_deploy"


def staged(label: AppName) -> AppName:
    """The name of the route of the version that is not live yet."""
    return AppName(f"{label}~next")


async def run_post_deploy(
    who: Principal, app: App, version: AppVersion, *, node: Node
) -> AsyncGenerator[Step]:
    """Raises CommandFailed, or why the worker could not run it, with the output in its details;
    the commands after it do not run then. Closing it ends the command that runs."""
    await asyncio.to_thread(_mount, who, app, version, node)
    passed, own = False, None
    try:
        own = await asyncio.to_thread(_stage, who, app, version, node)
        for command in version.spec.post_deploy:
            began = time.monotonic()
            yield Step(_STEP, "start", command)
            job = Job(name="post-deploy", schedule="", command=command, timeout_s=TIMEOUT_S)
            known_as = staged(app.label)
            outcome = await ask_worker(
                node.workers, app=app.label, job=job, own=own, known_as=known_as
            )
            if outcome.code != "ok":
                raise _failed(command, outcome)
            yield Step(_STEP, "done", command, time.monotonic() - began)
        passed = True
    finally:
        await asyncio.shield(asyncio.to_thread(_unstage, app, own, passed, node))
        if not passed:
            await asyncio.shield(asyncio.to_thread(_mount, who, app, None, node))


def _mount(who: Principal, app: App, version: AppVersion | None, node: Node) -> None:
    """The volumes of the live version and of `version`, which no other app has meanwhile.
    VolumeNotFound, VolumeInUse."""
    with node.state.transaction() as t:
        mine = t.of(who.tenant)
        live = mine.versions.get(app.label, app.live_version)
        specs = [one.spec for one in (live, version) if one is not None]
        mine.volumes.mount(app.label, {one.name for spec in specs for one in spec.volumes})


def _stage(who: Principal, app: App, version: AppVersion, node: Node) -> TenantName | None:
    """The tenant whose own worker is to be asked, if it has one."""
    mine = node.state.of(who.tenant)
    route = route_of(version, who.tenant, mine.secrets.sealed(app.name), mine.volumes)
    with node.publishing:
        return node.routes.stage(route, staged(app.label))


def _unstage(app: App, own: TenantName | None, passed: bool, node: Node) -> None:
    with node.publishing:
        node.routes.unstage(staged(app.label), own, follows=passed)


def _failed(command: str, outcome: Outcome) -> Exception:
    kind = ERRORS.get(outcome.code, CommandFailed)
    return kind(
        f"{command!r} failed, and the new version is not live: {outcome.message or outcome.code}",
        hint="the version before serves on; what the command did until then stays done",
        details={"output": outcome.output, "command": command},
    )
