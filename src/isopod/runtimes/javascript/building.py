"""What a builder asks of the JavaScript runtime: see the app answer once."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.model.app import AppSpec
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.javascript.runtime import JavaScriptRuntime


def check_health(runtime: JavaScriptRuntime, *, site_tree: Path, spec: AppSpec) -> HealthResult:
    """Boot the app as a worker would, and send it `GET [health] path`.

    Raises AppFailedToStart, EntrypointNotFound, EntrypointNotCallable, AppSyntaxError,
    MemoryLimitExceeded, DeadlineExceeded or HealthFailed; `details["traceback"]` holds what the
    guest printed.
    """
    health = HealthCheck(spec, do_less="do less when the module is loaded")

    async def ask(scheduler: Scheduler) -> HealthResult:
        guest = runtime.new_guest(
            scheduler=scheduler,
            site_tree=site_tree,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            output=health.collect,
        )
        return await health.ask(guest)

    with health.explained():
        return in_scheduler(runtime.linkage.engine, ask)
