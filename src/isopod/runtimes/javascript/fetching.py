"""fetch() of an app: HTTP/1.1 over connections that the broker makes, with h11.

The guest says the request and is given the response's head, and then a piece for each that it asks
for. Items belong to a fetch by its number. From the guest: f the head (lines: method, scheme, host,
port, target, whether a body follows, name:value...) | u a piece of the body | v its end | k the
next piece of the response, please | a it is wanted no more. To the guest: h the head (lines:
status, reason, name:value...) | d a piece | z the end | x it failed (text) | w the next piece of
the body, please.

What an app may reach is decided by the broker, as for every connection. The peer is as
hostile as the guest: h11 bounds what it sends.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from typing import Any

import h11

from isopod.errors import GuestProtocolError
from isopod.host.capabilities import World
from isopod.host.outside import OutsideError
from isopod.runtimes.javascript.exchange import Room, Say

_PIECE = 64 << 10
_MAX_HEAD = 64 << 10
_MAX_AT_ONCE = 64  # of one instance
_MAX_INFORMATIONAL = 10
_TLS_S = 30.0
_HOST = re.compile(r"[0-9A-Za-z._\-\[\]:]{1,255}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as the guest says it, checked."""

    method: bytes
    is_tls: bool
    host: str
    port: int
    target: bytes
    has_body: bool
    headers: tuple[tuple[bytes, bytes], ...]


def parse(data: bytes) -> Wanted:
    """Raises GuestProtocolError."""
    lines = data.split(b"\n")
    if len(data) > _MAX_HEAD or len(lines) < 6:
        raise GuestProtocolError("the guest fetches with a head that is none")
    method, scheme, host, port, target, body = lines[:6]
    name = host.decode("latin-1")
    if scheme not in (b"http", b"https") or not _HOST.fullmatch(name):
        raise GuestProtocolError(f"the guest fetches from {name[:80]!r}")
    if not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise GuestProtocolError("the guest fetches from a port that is none")
    headers = []
    for line in lines[6:]:
        key, colon, value = line.partition(b":")
        if not colon:
            raise GuestProtocolError("the guest fetches with half a header")
        headers.append((key, value))
    return Wanted(method, scheme == b"https", name, int(port), target, body == b"1", tuple(headers))


@dataclass(slots=True, eq=False)
class _Fetch:
    task: asyncio.Task[None] | None = None
    # None: the body's end.
    body: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(2))
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Fetches:
    """One guest's. `say` queues an item for it; `room` waits until there is room for more."""

    def __init__(self, world: World | None, *, app: str, say: Say, room: Room) -> None:
        """`world`: None where the app is built."""
        self._world = world
        self._app = app
        self._say = say
        self._room = room
        self._open: dict[int, _Fetch] = {}
        self.sent_bytes = 0

    def take(self, operation: bytes, number: int, data: bytes) -> None:
        """An item of the guest's. Raises GuestProtocolError."""
        fetch = self._open.get(number)
        if operation == b"f" and fetch is None:
            self._begin(number, parse(data))
        elif fetch is None:
            return  # it ended while the guest said so
        elif operation == b"a":
            self._drop(number)
        elif operation == b"k":
            fetch.asked.set()
        elif operation in (b"u", b"v"):
            if fetch.body.full():
                raise GuestProtocolError("the guest sends more of a body than it was asked for")
            fetch.body.put_nowait(data if operation == b"u" else None)
        else:
            raise GuestProtocolError(f"the guest sent operation {operation!r} for a fetch")

    def close(self) -> None:
        for number in list(self._open):
            self._drop(number)

    @property
    def are_open(self) -> bool:
        return bool(self._open)

    def _begin(self, number: int, wanted: Wanted) -> None:
        world = self._world
        if world is None:
            why = "there is no network while the app is deployed; fetch in a request"
            self._say(b"x", number, why.encode())
            return
        limits, counts = world.open_now.limits, world.open_now.by_app
        if len(self._open) >= _MAX_AT_ONCE or counts[self._app] >= limits.per_app:
            self._say(b"x", number, b"too many connections are open")
            return
        counts[self._app] += 1
        fetch = self._open[number] = _Fetch()
        fetch.task = asyncio.get_running_loop().create_task(self._run(number, fetch, wanted, world))

    def _drop(self, number: int) -> None:
        fetch = self._open.pop(number, None)
        if fetch is None or self._world is None:
            return
        counts = self._world.open_now.by_app
        counts[self._app] -= 1
        if counts[self._app] <= 0:
            del counts[self._app]
        if fetch.task is not None and fetch.task is not asyncio.current_task():
            fetch.task.cancel()

    async def _run(self, number: int, fetch: _Fetch, wanted: Wanted, world: World) -> None:
        try:
            await self._exchange(number, fetch, wanted, world)
        except OutsideError as error:
            self._failed(number, error.text or error.name)
        except ssl.SSLError as error:
            self._failed(number, f"TLS failed: {error.reason or error}")
        except TimeoutError:
            self._failed(number, "the connection timed out")
        except (OSError, EOFError) as error:
            self._failed(number, f"the connection failed: {error}")
        except h11.ProtocolError as error:
            self._failed(number, f"HTTP failed: {error}")
        except ValueError as error:  # a name that is none, for TLS
            self._failed(number, f"the request cannot be made: {error}")
        finally:
            self._drop(number)

    def _failed(self, number: int, why: str) -> None:
        if number in self._open:
            self._say(b"x", number, why.encode()[:2000])

    async def _exchange(self, number: int, fetch: _Fetch, wanted: Wanted, world: World) -> None:
        made = await world.outside.connect(self._app, [wanted.host], "", wanted.port)
        secure: dict[str, Any] = {}
        if wanted.is_tls:
            name = wanted.host.strip("[]")
            secure = {
                "ssl": world.contexts.default(),
                "server_hostname": name,
                "ssl_handshake_timeout": _TLS_S,
            }
        try:
            reader, writer = await asyncio.open_connection(sock=made, limit=_PIECE, **secure)
        except BaseException:
            made.close()
            raise
        try:
            link = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
            request = h11.Request(
                method=wanted.method, target=wanted.target, headers=list(wanted.headers)
            )
            await self._send(writer, link.send(request))
            while wanted.has_body and (piece := await self._next_piece(number, fetch)) is not None:
                await self._send(writer, link.send(h11.Data(piece)))
            await self._send(writer, link.send(h11.EndOfMessage()))
            await self._receive(number, fetch, link, reader)
        finally:
            writer.transport.abort()

    async def _next_piece(self, number: int, fetch: _Fetch) -> bytes | None:
        await self._room()
        self._say(b"w", number, b"")
        return await fetch.body.get()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes | None) -> None:
        if data:
            self.sent_bytes += len(data)
            writer.write(data)
            await writer.drain()

    async def _receive(
        self, number: int, fetch: _Fetch, link: h11.Connection, reader: asyncio.StreamReader
    ) -> None:
        informational = 0
        while True:
            event = link.next_event()
            if event is h11.NEED_DATA:
                link.receive_data(await reader.read(_PIECE))
            elif isinstance(event, h11.InformationalResponse):
                informational += 1
                if informational > _MAX_INFORMATIONAL:
                    raise h11.RemoteProtocolError("it sends one interim response after another")
            elif isinstance(event, h11.Response):
                lines = [b"%d" % event.status_code, event.reason]
                lines += [name + b":" + value for name, value in event.headers]
                await self._room()
                self._say(b"h", number, b"\n".join(lines))
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                for at in range(0, len(data), _PIECE):
                    # Asked for first: who does not read is not sent to.
                    await fetch.asked.wait()
                    fetch.asked.clear()
                    await self._room()
                    self._say(b"d", number, data[at : at + _PIECE])
            else:  # the end, or the peer's
                self._say(b"z", number, b"")
                return
