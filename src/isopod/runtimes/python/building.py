"""What a builder asks of the Python runtime: compile a tree, and see the app answer once."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from isopod.engine.instance import Preopen
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    DeadlineExceeded,
    HealthFailed,
    IsopodError,
)
from isopod.host.capabilities import no_world
from isopod.host.outside import NoOutside
from isopod.model.app import AppSpec
from isopod.model.log import Stream
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.health import HealthResult
from isopod.runtimes.python.runtime import PythonRuntime, in_scheduler
from isopod.runtimes.temporary import TemporaryFolder, scratch_volumes

START_DEADLINE_S = 60.0
_MAX_OUTPUT = 64 << 10
_COMPILE_MEMORY_MIB = 1024


def compile_tree(runtime: PythonRuntime, root: Path) -> list[tuple[str, str]]:
    """Byte-compile the sources below `root` in a guest of their own interpreter, in place.

    Gives (relative path, message) of the files that do not compile: no error by itself, since
    packages carry such files on purpose.
    """
    said = in_scheduler(
        runtime,
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
    output = bytearray()
    outside = NoOutside()

    def collect(_stream: Stream, data: bytes) -> None:
        output.extend(data[: _MAX_OUTPUT - len(output)])

    def printed() -> str:
        return output.decode("utf-8", "replace")

    async def check(scheduler: Scheduler) -> HealthResult:
        tmp, volumes = TemporaryFolder(tmp_root), TemporaryFolder(tmp_root)
        guest = runtime.new_guest(
            scheduler=scheduler,
            app_tree=app_tree,
            site_tree=site_tree,
            tmp=tmp.path,
            entrypoint=spec.entrypoint,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            disk_mib=spec.limits.disk_mib,
            output=collect,
            world=no_world(tmp_root, outside),
            volumes=scratch_volumes(spec, volumes.path),
        )
        try:
            began = time.monotonic()
            async with asyncio.timeout(START_DEADLINE_S):
                await guest.start()
            booted = time.monotonic()
            async with asyncio.timeout(spec.limits.deadline_ms / 1e3):
                response = await guest.exchange().send(_request(spec), _no_body)
                # One piece is enough: a health endpoint may stream for ever.
            ended = time.monotonic()
        except TimeoutError:
            raise DeadlineExceeded(
                f"app {spec.name!r} did not start and answer GET {spec.health.path} in time",
                hint="do less at import, or raise limits.deadline_ms",
            ) from None
        finally:
            guest.close()
            tmp.remove()
            volumes.remove()
        if response.status >= 500:
            raise HealthFailed(
                f"app {spec.name!r} answered GET {spec.health.path} with {response.status}",
                hint=_needs_network(outside.asked),
            )
        return HealthResult(
            status=response.status,
            boot_ms=(booted - began) * 1e3,
            request_ms=(ended - booted) * 1e3,
            output=printed(),
        )

    try:
        return in_scheduler(runtime, check)
    except IsopodError as error:
        raise _explain(error, spec, printed(), outside.asked) from error


def _needs_network(hosts: list[str]) -> str:
    """What to do about an app that asked for these and failed."""
    if not hosts:
        return ""
    names = ", ".join(repr(host[:100]) for host in hosts)
    return (
        f"it asked for {names}, and there is no network while an app is deployed: let [health] "
        "path name one that is answered without, with any status below 500"
    )


def _explain(error: IsopodError, spec: AppSpec, printed: str, asked: list[str]) -> IsopodError:
    """The error with what the app printed; an exception in the request is a failed health check."""
    if error.code in ("guest_failed", "guest_protocol_error"):
        error = HealthFailed(
            f"app {spec.name!r} failed to answer GET {spec.health.path}: {error.message}",
            hint=_needs_network(asked),
            details=error.details,
        )
    elif error.code == "stack_limit_exceeded":
        error = AppFailedToStart(error.message, details=error.details)
    if not error.details.get("traceback"):
        error.details["traceback"] = printed
    elif printed:
        error.details["output"] = printed
    return error


def _request(spec: AppSpec) -> GuestRequest:
    path, _, query = spec.health.path.partition("?")
    return GuestRequest(
        method="GET",
        path=path,
        query=query,
        protocol="HTTP/1.1",
        scheme="http",
        host="localhost",
        port=80,
        client="127.0.0.1",
        headers=(("host", "localhost"), ("user-agent", "isopod-health")),
    )


async def _no_body(_size: int) -> bytes:
    return b""


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
