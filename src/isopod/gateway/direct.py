"""What the gateway answers itself, whole apps and files beside one: the same admission, limits and
meter as for all others, but no pool, no instance, and no time of a guest's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from isopod.errors import IsopodError, ResponseTooLarge
from isopod.gateway.body import Send, send_piece
from isopod.gateway.timing import no_guest
from isopod.model.route import Route
from isopod.model.usage import UsageRecord, hundreds_of_ms
from isopod.runtimes.direct import Beside, Direct, DirectRequest, DirectResponse

# As `Fleet.status` counts its apps.
_NOTHING = {"queued": 0, "requests": 0, "cold_starts": 0, "starts_ms": [], "errors": 0}
_TIMING = (b"server-timing", no_guest().encode())


class DirectApps:
    """`runtimes` by name; `files` are those beside apps. Counts what it answered, by app."""

    def __init__(self, runtimes: Mapping[str, Direct], *, files: Beside) -> None:
        self._runtimes = runtimes
        self._files = files
        self._requests: dict[str, int] = {}
        self._errors: dict[str, int] = {}

    def of(self, route: Route) -> Direct | None:
        return self._runtimes.get(route.spec.runtime)

    async def answer(
        self, direct: Direct, route: Route, request: DirectRequest, request_id: str, send: Send
    ) -> None:
        """Raises IsopodError: the caller answers it, if the client has got nothing yet."""
        self._requests[route.name] = self._requests.get(route.name, 0) + 1
        try:
            response = await direct.answer(route, request)
            await _send(route, response, request_id, send)
        except IsopodError as error:
            self._failed(route, error)
            raise

    async def answer_beside(
        self, route: Route, request: DirectRequest, request_id: str, send: Send
    ) -> bool:
        """False: no file is at that path, and nothing is sent. Raises as `answer`."""
        if not _is_below(request.path, route.spec.static):
            return False
        response = await self._files.look(route, request)
        if response is None:
            return False
        self._requests[route.name] = self._requests.get(route.name, 0) + 1
        try:
            await _send(route, response, request_id, send)
        except IsopodError as error:
            self._failed(route, error)
            raise
        return True

    async def make_ready(self, route: Route) -> None:
        """A new version's files, if it has any that are served here. Raises IsopodError."""
        direct = self.of(route)
        if direct is not None:
            await direct.make_ready(route)
        elif route.spec.static:
            await self._files.make_ready(route)

    def _failed(self, route: Route, error: IsopodError) -> None:
        if error.whose != "caller":
            self._errors[route.name] = self._errors.get(route.name, 0) + 1

    def forget(self, find_route: Callable[[str], Route | None]) -> None:
        """The counts of apps that are gone."""
        for name in [name for name in self._requests if find_route(name) is None]:
            del self._requests[name]
            self._errors.pop(name, None)

    def status(self, fleet: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """`fleet`, the counts of the apps that have instances, with these in them."""
        found = {name: dict(counts) for name, counts in fleet.items()}
        for name, requests in self._requests.items():
            counts = found.setdefault(name, dict(_NOTHING))
            counts["requests"] += requests
            counts["errors"] += self._errors.get(name, 0)
        return found


def _is_below(path: str, served: Mapping[str, str]) -> bool:
    """Whether a file may be served there. An escaped letter may be one of a path's."""
    return "%" in path or any(path.startswith(prefix) for prefix in served)


async def _send(route: Route, response: DirectResponse, request_id: str, send: Send) -> None:
    limit = route.spec.limits.max_response_mib
    if response.size > limit << 20:
        raise ResponseTooLarge(f"the response of app {route.name!r} is larger than {limit} MiB")
    headers = [*response.headers, (b"x-request-id", request_id.encode()), _TIMING]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.pieces is not None:
        async with contextlib.aclosing(response.pieces) as pieces:
            async for piece in pieces:
                await send_piece(piece, send)
    await send({"type": "http.response.body", "body": response.body, "more_body": False})


class DirectUse:
    """What one request used, as `isopod.gateway.usage.RequestUse` tells it: no guest's CPU, no
    instance's memory, but our own time and the bytes."""

    __slots__ = ("_began_ns", "route")
    egress_bytes = 0  # beside the response: nobody connects anywhere

    def __init__(self, route: Route) -> None:
        self.route = route
        self._began_ns = time.monotonic_ns()

    def record(
        self,
        *,
        request_id: str,
        outcome: str,
        status: int,
        host_ns: int,
        bytes_in: int,
        bytes_out: int,
    ) -> UsageRecord:
        route = self.route
        wall_ns = time.monotonic_ns() - self._began_ns
        return UsageRecord(
            kind="request",
            at=time.time(),
            tenant=route.tenant,
            app=route.name,
            version=route.version,
            instance="",
            request_id=request_id,
            outcome=outcome,
            status=status,
            host_ns=host_ns,
            wall_ns=wall_ns,
            wait_ns=max(0, wall_ns - host_ns),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            wall_100ms=hundreds_of_ms(wall_ns),
        )
