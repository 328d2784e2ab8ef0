"""What a builder asks of a reactor: that its module can be run, and that it answers once."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports, Linkage
from isopod.engine.machine_code import CompiledHere
from isopod.engine.module_check import check_module
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.model.app import AppSpec
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.reactor import abi
from isopod.runtimes.reactor.runtime import MODULE, new_guest
from isopod.runtimes.temporary import scratch


def link(site_tree: Path) -> Linkage:
    """Compile the module here. Raises ModuleInvalid."""
    engine = make_engine(EngineSettings())
    module = CompiledHere(engine).compiled(site_tree / MODULE)
    imports = Imports(engine, abi.IMPORTS, streams=True)
    check_module(module, imports, abi.EXPORTS, optional=abi.OPTIONAL)
    return Linkage(engine, module, imports)


def check_health(linkage: Linkage, *, app_tree: Path, tmp: Path, spec: AppSpec) -> HealthResult:
    """Boot the app as a worker would, and send it `GET [health] path`.

    Raises AppFailedToStart, MemoryLimitExceeded, DeadlineExceeded or HealthFailed;
    `details["traceback"]` holds what the guest printed.
    """
    health = HealthCheck(spec, do_less="do less before the app serves")

    async def ask(scheduler: Scheduler) -> HealthResult:
        guest = new_guest(
            linkage,
            scheduler=scheduler,
            app_tree=app_tree,
            tmp=folders.tmp,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            disk_mib=spec.limits.disk_mib,
            output=health.collect,
            share=("", ""),
            precise_clocks=False,
            volumes=folders.volumes,
        )
        return await health.ask(guest)

    with scratch(spec, tmp) as folders, health.explained():
        return in_scheduler(linkage.engine, ask)
