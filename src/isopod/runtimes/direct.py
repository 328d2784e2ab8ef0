"""What the gateway answers itself, whole apps or files beside one: no guest, no instance, nothing
to wake."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from isopod.model.route import Route


# Not frozen, both: one is made for every request, and that would take longer.
@dataclass(slots=True)
class DirectRequest:
    """Header names are lower case, as bytes."""

    method: str
    path: str  # percent-encoded, as it came
    query: str
    headers: list[tuple[bytes, bytes]]


@dataclass(slots=True)
class DirectResponse:
    """`size` bytes of body follow: `body`, then `pieces`. HEAD has a length and no body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    pieces: AsyncGenerator[bytes] | None = None
    size: int = 0


class Beside(Protocol):
    """Files beside an app of any runtime, in one worker, on its loop."""

    async def look(self, route: Route, request: DirectRequest) -> DirectResponse | None:
        """None: the app answers. Raises IsopodError."""

    async def make_ready(self, route: Route) -> None:
        """As `Direct.make_ready`."""


@runtime_checkable
class Direct(Protocol):
    """In one worker, on its loop."""

    async def answer(self, route: Route, request: DirectRequest) -> DirectResponse:
        """Raises IsopodError for what it has no answer of the app's own to."""

    async def make_ready(self, route: Route) -> None:
        """Verify a new version's files now: its first request shall not wait for that."""
