"""A live guest as the gateway and the builder see it, whatever its language.

A request is an `Exchange`: `send`, then `next_chunk` until it gives None when the response says
`more`, then `finish`. A guest has `capacity` of them at once; one that has only one is its own
exchange. A WebSocket is a `SocketExchange`, and counts as one of them.

Every wait of an exchange for its client (reading the body, a chunk nobody has taken yet) is counted
in `client_wait_s`, because deadlines do not count it. While no exchange is open, a guest is not
run: its timers and its connections wait for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from isopod.errors import IsopodError
from isopod.model.log import Stream

if TYPE_CHECKING:  # whoever only lists runtimes does not load the engine
    from isopod.engine.instance import Instance

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
    request_id: str = ""  # for the log
    # Of a WebSocket that was open while its instance was gone: what the app attached to it.
    # None: the WebSocket is new.
    attachment: bytes | None = None


def own_request(
    method: str, target: str, headers: Mapping[str, str], *, has_body: bool = False
) -> GuestRequest:
    """Of the node itself, as if it came from this machine. `target`: path and query."""
    path, _, query = target.partition("?")
    return GuestRequest(
        method=method,
        path=path,
        query=query,
        protocol="HTTP/1.1",
        scheme="http",
        host="localhost",
        port=80,
        client="127.0.0.1",
        headers=tuple(headers.items()),
        has_body=has_body,
    )


@dataclass(frozen=True, slots=True)
class GuestResponse:
    """`body` is whole unless `more`. Names and values are checked: tokens, no control bytes.
    `length` is the Content-Length the app declared."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    more: bool
    length: int | None = None


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """The end of a WebSocket, said by either side. RFC 6455 7.4: 1005 is a close without a code,
    1006 a connection that just went away."""

    code: int = 1005
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SocketAccepted:
    """The app took the WebSocket. `subprotocol` is one that the client offered, or ""."""

    subprotocol: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


SocketMessage = str | bytes | SocketClosed
# Gives the client's next message; after SocketClosed it is not called again. It is asked for the
# next one only when the app wants it: that is what slows a client that floods.
MessageReader = Callable[[], Awaitable[SocketMessage]]


class Exchange(Protocol):
    """One request to a guest, and its response."""

    @property
    def client_wait_s(self) -> float:
        """Time that it has waited for its client."""

    @property
    def ended(self) -> bool:
        """The app has done everything for it."""

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse: ...

    async def next_chunk(self) -> bytes | None: ...

    async def finish(self) -> None:
        """After a whole response: until `ended`. An app may go on working when its client has
        everything."""

    def abandon(self) -> None:
        """Nobody wants the response: the app is told, if it asks or streams."""

    def stop(self) -> None:
        """End it now: whoever waits in it gets GuestFailed. A guest that has others goes on with
        them if it can."""


class SocketExchange(Protocol):
    """One WebSocket to a guest. `abandon` and `stop` are as an Exchange's."""

    @property
    def client_wait_s(self) -> float: ...

    @property
    def ended(self) -> bool: ...

    @property
    def attachment(self) -> bytes | None:
        """What the app attached to it since `open`; None: nothing."""

    async def open(
        self, request: GuestRequest, read: MessageReader
    ) -> SocketAccepted | GuestResponse:
        """A response instead of a WebSocket refuses it (403 if the app said nothing else)."""

    async def next_message(self) -> SocketMessage:
        """What the app sends next. After SocketClosed there is nothing more."""

    async def finish(self) -> None: ...

    def abandon(self) -> None: ...

    def stop(self) -> None: ...


class Guest(Protocol):
    """One instance that answers requests."""

    @property
    def idle(self) -> bool:
        """Ready for another exchange."""

    @property
    def capacity(self) -> int:
        """How many exchanges it can have at once; known when it has started."""

    def exchange(self) -> Exchange:
        """For a new request; only when `idle`."""

    def socket(self) -> SocketExchange | None:
        """For a new WebSocket; only when `idle`. None: its app takes none."""

    @property
    def speaker(self) -> str:
        """The request id of the exchange whose output the sink is being told now; "" if unknown."""

    @property
    def waiting(self) -> bool:
        """Suspended in a host call: it needs no CPU now."""

    @property
    def blocked(self) -> bool:
        """Deaf for now: suspended in a call for one of its exchanges, or at work on one that was
        stopped."""

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

    async def start(self) -> None:
        """Boot until it is ready. Raises the app's or the engine's error."""

    def close(self) -> None:
        """End it now, whatever it does. Safe to call twice."""


class InstanceGuest:
    """What guests that are one Instance have in common: what it costs, and that somebody waits
    for it."""

    # What an instance writes of its image's pages by serving.
    restored_bytes: ClassVar[int]

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._waiter: asyncio.Future[Any] | None = None

    @property
    def instance(self) -> Instance:
        """For those who take its memory."""
        return self._instance

    @property
    def cpu_ns(self) -> int:
        return self._instance.cpu_ns

    @property
    def host_ns(self) -> int:
        return self._instance.host_ns

    @property
    def memory_bytes(self) -> int:
        return max(0, self._instance.memory_bytes - self._instance.spec.reserved_bytes)

    @property
    def peak_memory_bytes(self) -> int:
        return max(0, self._instance.peak_memory_bytes - self._instance.spec.reserved_bytes)

    @property
    def private_bytes(self) -> int:
        return self.private_of(self.memory_bytes)

    def private_of(self, memory_bytes: int) -> int:
        reserved, shared = self._instance.spec.reserved_bytes, self._instance.image_bytes
        if shared:
            restored = max(0, self.restored_bytes - self._instance.given_back_bytes)
            return memory_bytes + reserved - shared + restored
        return memory_bytes + reserved  # it was cleared, and so written

    def _wait(self) -> asyncio.Future[Any]:
        """What the next `_settle` ends."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _settle(self, value: Any = None, error: IsopodError | None = None) -> None:
        """Nobody may be waiting."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(value)
