"""What a builder asks of the Python runtime: compile a tree, and see the app answer once."""

from __future__ import annotations

import re
from pathlib import Path

from isopod.engine.instance import Preopen
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import AppSyntaxError, HealthFailed
from isopod.host.capabilities import no_world
from isopod.host.outside import NoOutside
from isopod.model.app import AppSpec
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.temporary import scratch

_COMPILE_MEMORY_MIB = 1024


def compile_tree(runtime: PythonRuntime, root: Path) -> list[tuple[str, str]]:
    """Byte-compile the sources below `root` in a guest of their own interpreter, in place.

    Gives (relative path, message) of the files that do not compile: no error by itself, since
    packages carry such files on purpose.
    """
    said = in_scheduler(
        runtime.linkage.engine,
        lambda scheduler: runtime.run_script(
            scheduler,
            "import isopod_compile; isopod_compile.main('/work')",
            (Preopen(root, "/work", writable=True),),
            _COMPILE_MEMORY_MIB,
        ),
    )
    failed = [line.partition("\t") for line in said.splitlines()[1:]]
    return [(path, message) for path, _, message in failed]


def compile_app(runtime: PythonRuntime, root: Path) -> None:
    """As `compile_tree`, of what its author can mend. Raises AppSyntaxError."""
    failed = compile_tree(runtime, root)
    if failed:
        raise _does_not_compile(failed)


def check_health(
    runtime: PythonRuntime, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
) -> HealthResult:
    """Boot the app as a worker would, and send it `GET [health] path`.

    Raises AppFailedToStart, EntrypointNotFound, EntrypointNotCallable, AppSyntaxError,
    MemoryLimitExceeded or HealthFailed; `details["traceback"]` holds what the guest printed.
    """
    health = HealthCheck(spec, do_less="do less at import")
    outside = NoOutside()

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
            world=no_world(tmp_root, outside),
            volumes=folders.volumes,
        )
        return await health.ask(guest)

    try:
        with scratch(spec, tmp_root) as folders, health.explained():
            return in_scheduler(runtime.linkage.engine, ask)
    except HealthFailed as error:
        error.hint = _needs_network(outside.asked) or error.hint
        raise


def _needs_network(hosts: list[str]) -> str:
    """What to do about an app that asked for these and failed."""
    if not hosts:
        return ""
    names = ", ".join(repr(host[:100]) for host in hosts)
    return (
        f"it asked for {names}, and there is no network while an app is deployed: let [health] "
        "path name one that is answered without, with any status below 500"
    )


def _does_not_compile(failed: list[tuple[str, str]]) -> AppSyntaxError:
    path, message = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    line = re.search(r"\bline (\d+)", message)
    return AppSyntaxError(
        f"{path}: {message}{more}",
        hint="fix it, or list the file in .isopodignore if the app does not need it",
        details={
            "file": path,
            "line": int(line[1]) if line else 0,
            "text": message,
            "files": [{"file": name, "text": text} for name, text in failed],
            "traceback": "\n".join(f"{name}: {text}" for name, text in failed),
        },
    )
