"""The requests that an app is warmed with before its memory becomes an image."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from isopod.errors import AppFailedToStart, DeadlineExceeded
from isopod.model.app import AppSpec, WarmupRequest
from isopod.runtimes.guest import Guest, GuestRequest, own_request

# The second of the same request takes paths that the first one left cold; a third, hardly any.
_REPEATS = 3
# Requests, and their bodies.
Warmup = Sequence[tuple[GuestRequest, bytes]]


def requests_of(spec: AppSpec) -> Warmup:
    """All of an app's, in their order; nothing: it wants none."""
    return [warmup_request(one) for one in spec.startup.warmup for _ in range(_REPEATS)]


def warmup_request(one: WarmupRequest) -> tuple[GuestRequest, bytes]:
    """A warm-up as the gateway would send it, so that the very path of a real one is warm."""
    body = one.body.encode()
    headers = {
        "user-agent": "isopod-warmup",
        "accept": "*/*",
        **{name.lower(): value for name, value in one.headers},
        "host": "localhost",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "localhost",
        "x-request-id": "warmup",
        "x-isopod-warmup": "1",
    }
    if body:
        headers["content-length"] = str(len(body))
    return own_request(one.method, one.path, headers, has_body=bool(body)), body


async def warm(guest: Guest, request: GuestRequest, body: bytes) -> None:
    """Send it and take the whole response. Raises AppFailedToStart for a status of 500 or more."""
    left = body

    async def read(size: int) -> bytes:
        nonlocal left
        data, left = left[:size], left[size:]
        return data

    exchange = guest.exchange()
    response = await exchange.send(request, read)
    while response.more and await exchange.next_chunk() is not None:
        pass
    await exchange.finish()
    if response.status >= 500:
        raise AppFailedToStart(
            f"the warm-up {request.method} {request.path} answered {response.status}"
        )


@contextlib.asynccontextmanager
async def bounded(seconds: float, what: str) -> AsyncIterator[None]:
    """Raises DeadlineExceeded: "`what` did not end within ... s"."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"{what} did not end within {seconds:g} s") from None
