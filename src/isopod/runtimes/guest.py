"""A live guest as the gateway and the builder see it, whatever its language.

A request is `send`, then `next_chunk` until it gives None when the response says `more`, else
`finish`.
One request at a time. Every wait of a guest for its client (reading the body, a chunk nobody has
taken yet) is counted in `client_wait_s`, because deadlines do not count it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from isopod.model.log import Stream

# Takes a piece of output (not always a whole line).
OutputSink = Callable[[Stream, bytes], None]
# Gives at most n bytes of the request body; b"" at its end. May raise IsopodError.
BodyReader = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """Header names are lower case; nothing here holds a line break (the gateway checked)."""

    method: str
    path: str  # percent-encoded, as it came
    query: str
    protocol: str  # "HTTP/1.1" or "HTTP/2"
    scheme: str
    host: str
    port: int
    client: str
    headers: tuple[tuple[str, str], ...] = ()
    has_body: bool = False


@dataclass(frozen=True, slots=True)
class GuestResponse:
    """`body` is whole unless `more`. Names and values are checked: tokens, no control bytes.
    `length` is the Content-Length the app declared."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    more: bool
    length: int | None = None


class Guest(Protocol):
    """One instance that answers requests."""

    @property
    def idle(self) -> bool:
        """Ready for `send`."""

    @property
    def waiting(self) -> bool:
        """Suspended in a host call: it needs no CPU now."""

    @property
    def cpu_ns(self) -> int:
        """CPU time used so far, over all requests; also after its end."""

    @property
    def host_ns(self) -> int:
        """CPU time of ours so far in taking its calls and answering them; also after its end."""

    @property
    def memory_bytes(self) -> int:
        """Its linear memory."""

    @property
    def peak_memory_bytes(self) -> int:
        """Its linear memory at its largest; also after its end."""

    @property
    def private_bytes(self) -> int:
        """About how much memory it costs: what it shares with its image's other instances is not
        counted."""

    def private_of(self, memory_bytes: int) -> int:
        """What `private_bytes` is when its linear memory is so large."""

    @property
    def sent_bytes(self) -> int:
        """Sent so far over connections that it made itself; also after its end."""

    @property
    def client_wait_s(self) -> float:
        """Time this request's guest has waited for its client."""

    async def start(self) -> None:
        """Boot until it is ready. Raises the app's or the engine's error."""

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse: ...

    async def next_chunk(self) -> bytes | None: ...

    async def finish(self) -> None:
        """After a whole response: until the guest is idle. An app may go on working when its
        client has everything."""

    def abandon(self) -> None:
        """Nobody wants the response: let the guest end its request if it is streaming."""

    def close(self) -> None:
        """End it now, whatever it does. Safe to call twice."""
