"""All of a worker's WebSockets on the side of their clients: made of the HTTP server's connections,
pinged, and ended when the client is gone or nobody has had anything to say for too long.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isopod.errors import ClientDisconnected
from isopod.gateway.rounds import go_round
from isopod.gateway.taken import Accepted, find, plain, segments_sent, take
from isopod.gateway.wire import Wire

_EVERY_S = 5.0
_ANSWERED_S = 5.0
# A client that has been silent for so long is asked whether it is there, and is gone when it has
# not even said that. Proxies on the way close what is quiet for a minute.
PING_AFTER_S = 30.0
GONE_AFTER_S = 90.0
GOING_AWAY = 1001
# Of all, in messages on their way: each alone may hold some MiB, and thousands what the worker has.
MAX_HELD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Quiet:
    """Of one WebSocket: for how long. `idle_s`: without a message, either way."""

    heard_s: float
    pinged_s: float
    idle_s: float


def chore(quiet: Quiet, *, max_idle_s: float) -> str:
    """What is to be done about it: "ping", "abort", "close" or "" (nothing)."""
    if quiet.heard_s >= GONE_AFTER_S:
        return "abort"
    if quiet.idle_s >= max_idle_s:
        return "close"
    if quiet.heard_s >= PING_AFTER_S and quiet.pinged_s >= PING_AFTER_S:
        return "ping"
    return ""


def too_many(held: Sequence[int], *, most: int) -> list[int]:
    """The places of those in `held` (bytes) that have to go, so that all together are half of
    `most`: none while they are not more than that, then the largest."""
    left = sum(held)
    if left <= most:
        return []
    chosen = []
    for place in sorted(range(len(held)), key=held.__getitem__, reverse=True):
        if left <= most // 2:
            break
        chosen.append(place)
        left -= held[place]
    return chosen


class Wires:
    """Of the gateway's `port`. `clients`: their addresses, as the kernel says them."""

    def __init__(self, *, port: int) -> None:
        self.clients: set[tuple[str, int]] = set()
        self._copies: set[int] = set()
        self._port = port
        self._wires: dict[Wire, tuple[float, tuple[str, int], int]] = {}

    def __len__(self) -> int:
        return len(self._wires)

    def find(self, client: tuple[str, int]) -> Accepted | None:
        """The connection of a client that has just asked for a WebSocket."""
        return find((plain(client[0]), client[1]), self._port, known=self._copies)

    async def open(
        self,
        connection: Accepted | None,
        accept: Callable[[], object],
        *,
        max_message_bytes: int,
        max_idle_s: float,
    ) -> Wire:
        """Of a connection whose handshake `accept` answers, without saying when. Raises
        ClientDisconnected."""
        copy = None if connection is None else take(connection)
        if connection is None or copy is None:
            raise ClientDisconnected("the client went away")
        link = socket.socket(fileno=copy)
        try:
            before = segments_sent(link)
            accept()
            await _answered(link, before)
        except BaseException:
            link.close()
            raise
        link.setblocking(False)
        wire = Wire(link, max_message_bytes=max_message_bytes)
        client = connection.client
        self.clients.add(client)
        self._copies.add(copy)
        self._wires[wire] = (max_idle_s, client, copy)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: wire, link)
        except BaseException:
            self.forget(wire)
            link.close()
            raise
        return wire

    def forget(self, wire: Wire) -> None:
        """It has ended."""
        if wire in self._wires:
            _, client, copy = self._wires.pop(wire)
            self.clients.discard(client)
            self._copies.discard(copy)

    async def run(self) -> None:
        """Until it is cancelled."""
        failed = "WebSockets could not be looked at"
        await go_round(self.look, every_s=lambda: _EVERY_S, failed=failed)

    def look(self) -> None:
        now = asyncio.get_running_loop().time()
        for wire, (max_idle_s, _, _) in list(self._wires.items()):
            if wire.waits_for_us:
                wire.heard_at = max(wire.heard_at, now - PING_AFTER_S)
            quiet = Quiet(now - wire.heard_at, now - wire.pinged_at, now - wire.moved_at)
            todo = chore(quiet, max_idle_s=max_idle_s)
            if todo == "ping":
                wire.ping()
            elif todo == "close":
                wire.close(GOING_AWAY, "idle")
            elif todo == "abort":
                wire.abort()
        wires = list(self._wires)
        for place in too_many([wire.held_bytes for wire in wires], most=MAX_HELD_BYTES):
            wires[place].abort()


async def _answered(link: socket.socket, before: int) -> None:
    """Until the client has been sent something: a frame must not overtake the handshake."""
    end, wait_s = time.monotonic() + _ANSWERED_S, 0.0
    while segments_sent(link) == before:
        if time.monotonic() > end:
            raise ClientDisconnected("the handshake of a WebSocket was not answered")
        await asyncio.sleep(wait_s)
        wait_s = min(0.01, 2 * wait_s + 0.0002)
