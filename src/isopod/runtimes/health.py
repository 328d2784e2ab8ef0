"""The request that a new version must answer, whatever its language."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from isopod.errors import AppFailedToStart, DeadlineExceeded, HealthFailed, IsopodError
from isopod.model.app import AppSpec
from isopod.model.log import Stream
from isopod.runtimes.guest import Guest, GuestRequest, own_request

START_DEADLINE_S = 60.0
_MAX_OUTPUT = 64 << 10


@dataclass(frozen=True, slots=True)
class HealthResult:
    """The answer to the health request, and what the app printed until then."""

    status: int
    boot_ms: float
    request_ms: float
    output: str


class HealthCheck:
    """Of `spec`. `do_less`: what helps an app of its language to start sooner."""

    def __init__(self, spec: AppSpec, *, do_less: str) -> None:
        self._spec = spec
        self._do_less = do_less
        self._output = bytearray()

    def collect(self, _stream: Stream, data: bytes) -> None:
        """The guest's output sink."""
        self._output.extend(data[: _MAX_OUTPUT - len(self._output)])

    async def ask(self, guest: Guest) -> HealthResult:
        """Boot the guest as a worker would, send it `GET [health] path`, and close it.

        Raises what its start raises, GuestFailed, DeadlineExceeded or HealthFailed.
        """
        spec = self._spec
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
                hint=f"{self._do_less}, or raise limits.deadline_ms",
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
            output=self._output.decode("utf-8", "replace"),
        )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Errors out of it say what the app printed, in `details["traceback"]` where it holds no
        traceback of the app's; an exception in the request is a failed health check."""
        try:
            yield
        except IsopodError as error:
            raise _explain(error, self._spec, self._output.decode("utf-8", "replace")) from error


def _explain(error: IsopodError, spec: AppSpec, printed: str) -> IsopodError:
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
    headers = {"host": "localhost", "user-agent": "isopod-health"}
    return own_request("GET", spec.health.path, headers)


async def no_body(_size: int) -> bytes:
    return b""
