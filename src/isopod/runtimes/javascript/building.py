"""What a builder asks of the JavaScript runtime: see the app answer once."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import ManifestInvalid
from isopod.model.app import AppSpec
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.javascript.kv import binding_name
from isopod.runtimes.javascript.runtime import JavaScriptRuntime
from isopod.runtimes.temporary import scratch


def check_health(
    runtime: JavaScriptRuntime, *, site_tree: Path, spec: AppSpec, tmp_root: Path
) -> HealthResult:
    """Boot the app as a worker would, and send it `GET [health] path`.

    Raises ManifestInvalid, AppFailedToStart, EntrypointNotFound, EntrypointNotCallable,
    AppSyntaxError, MemoryLimitExceeded, DeadlineExceeded or HealthFailed; `details["traceback"]`
    holds what the guest printed.
    """
    check_bindings(spec)
    health = HealthCheck(spec, do_less="do less when the module is loaded")

    async def ask(scheduler: Scheduler) -> HealthResult:
        guest = runtime.new_guest(
            scheduler=scheduler,
            site_tree=site_tree,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            output=health.collect,
            volumes=folders.volumes,
        )
        return await health.ask(guest)

    with scratch(spec, tmp_root) as folders, health.explained():
        return in_scheduler(runtime.linkage.engine, ask)


def check_bindings(spec: AppSpec) -> None:
    """Raises ManifestInvalid: two volumes cannot be one property of `env`."""
    names = [binding_name(one.mount) for one in spec.volumes]
    for name in names:
        if names.count(name) > 1:
            raise ManifestInvalid(
                f"two volumes are mounted as env.{name}",
                hint="a volume is named in env by the last name of its mount; choose another",
            )
