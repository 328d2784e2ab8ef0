"""Apps that the gateway answers itself: the same admission, limits and meter as for all others, but
no pool, no instance, and no time of a guest's.
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
from isopod.runtimes.direct import Direct, DirectRequest, DirectResponse

_TIMING = (b"server-timing", no_guest().encode())


class DirectApps:
    """`runtimes` by name. Counts what it answered, by app."""

    def __init__(self, runtimes: Mapping[str, Direct]) -> None:
        self._runtimes = runtimes
        self._requests: dict[str, int] = {}
        self._errors: dict[str, int] = {}

    def of(self, route: Route) -> Direct | None:
        return self._runtimes.get(route.spec.runtime)

    async def answer(
        self, direct: Direct, route: Route, request: DirectRequest, request_id: str, send: Send
    ) -> None:
        """Raises IsopodError: the caller answers it, if the client has got nothing yet."""
        name = route.name
        self._requests[name] = self._requests.get(name, 0) + 1
        try:
            response = await direct.answer(route, request)
            limit = route.spec.limits.max_response_mib
            if response.size > limit << 20:
                raise ResponseTooLarge(f"the response of app {name!r} is larger than {limit} MiB")
            await _send(response, request_id, send)
        except IsopodError as error:
            if error.whose != "caller":
                self._errors[name] = self._errors.get(name, 0) + 1
            raise

    def forget(self, find_route: Callable[[str], Route | None]) -> None:
        """The counts of apps that are gone."""
        for name in [name for name in self._requests if find_route(name) is None]:
            del self._requests[name]
            self._errors.pop(name, None)

    def status(self) -> dict[str, Any]:
        """As `Fleet.status` counts its apps."""
        return {
            name: {
                "queued": 0,
                "requests": requests,
                "cold_starts": 0,
                "starts_ms": [],
                "errors": self._errors.get(name, 0),
            }
            for name, requests in self._requests.items()
        }


async def _send(response: DirectResponse, request_id: str, send: Send) -> None:
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
