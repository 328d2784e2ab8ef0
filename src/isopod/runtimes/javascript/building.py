"""What a builder asks of the JavaScript runtime: see the app answer once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from isopod.engine.scheduler import Scheduler
from isopod.errors import AppFailedToStart, DeadlineExceeded, HealthFailed, IsopodError
from isopod.model.app import AppSpec
from isopod.model.log import Stream
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.health import HealthResult
from isopod.runtimes.javascript.runtime import JavaScriptRuntime, in_scheduler

START_DEADLINE_S = 60.0
_MAX_OUTPUT = 64 << 10


def check_health(runtime: JavaScriptRuntime, *, site_tree: Path, spec: AppSpec) -> HealthResult:
    """Boot the app as a worker would, and send it `GET [health] path`.

    Raises AppFailedToStart, EntrypointNotFound, EntrypointNotCallable, AppSyntaxError,
    MemoryLimitExceeded, DeadlineExceeded or HealthFailed; `details["traceback"]` holds what the
    guest printed.
    """
    output = bytearray()

    def collect(_stream: Stream, data: bytes) -> None:
        output.extend(data[: _MAX_OUTPUT - len(output)])

    async def check(scheduler: Scheduler) -> HealthResult:
        guest = runtime.new_guest(
            scheduler=scheduler,
            site_tree=site_tree,
            env=spec.env,
            memory_mib=spec.limits.memory_mib,
            output=collect,
        )
        try:
            began = time.monotonic()
            async with asyncio.timeout(START_DEADLINE_S):
                await guest.start()
            booted = time.monotonic()
            async with asyncio.timeout(spec.limits.deadline_ms / 1e3):
                # One piece is enough: a health endpoint may stream for ever.
                response = await guest.exchange().send(health_request(spec), no_body)
            ended = time.monotonic()
        except TimeoutError:
            raise DeadlineExceeded(
                f"app {spec.name!r} did not start and answer GET {spec.health.path} in time",
                hint="do less when the module is loaded, or raise limits.deadline_ms",
            ) from None
        finally:
            guest.close()
        if response.status >= 500:
            raise HealthFailed(
                f"app {spec.name!r} answered GET {spec.health.path} with {response.status}"
            )
        return HealthResult(
            status=response.status,
            boot_ms=(booted - began) * 1e3,
            request_ms=(ended - booted) * 1e3,
            output=output.decode("utf-8", "replace"),
        )

    try:
        return in_scheduler(runtime, check)
    except IsopodError as error:
        raise _explain(error, spec, output.decode("utf-8", "replace")) from error


def _explain(error: IsopodError, spec: AppSpec, printed: str) -> IsopodError:
    """The error with what the app printed; an exception in the request is a failed health check."""
    if error.code in ("guest_failed", "guest_protocol_error"):
        error = HealthFailed(
            f"app {spec.name!r} failed to answer GET {spec.health.path}: {error.message}",
            details=error.details,
        )
    elif error.code == "stack_limit_exceeded":
        error = AppFailedToStart(error.message, details=error.details)
    if not error.details.get("traceback"):
        error.details["traceback"] = printed
    elif printed:
        error.details["output"] = printed
    return error


def health_request(spec: AppSpec) -> GuestRequest:
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


async def no_body(_size: int) -> bytes:
    return b""
