"""What a builder asks of the Ruby runtime: see the app answer once."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.model.app import AppSpec
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.ruby.runtime import RubyRuntime
from isopod.runtimes.temporary import scratch


def check_health(
    runtime: RubyRuntime, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
) -> HealthResult:
    """Boot the app as a worker would without an image, and send it `GET [health] path`.

    Raises AppFailedToStart, EntrypointNotCallable, AppSyntaxError, MemoryLimitExceeded,
    DeadlineExceeded or HealthFailed; `details["traceback"]` holds what the guest printed.
    """
    health = HealthCheck(spec, do_less="do less in config.ru")

    async def ask(scheduler: Scheduler) -> HealthResult:
        guest = runtime.new_guest(
            scheduler=scheduler,
            app_tree=app_tree,
            site_tree=site_tree,
            tmp=folders.tmp,
            entrypoint=spec.entrypoint,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            disk_mib=spec.limits.disk_mib,
            output=health.collect,
            volumes=folders.volumes,
        )
        return await health.ask(guest)

    with scratch(spec, tmp_root) as folders, health.explained():
        return in_scheduler(runtime.linkage.engine, ask)
