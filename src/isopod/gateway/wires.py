"""All of a worker's WebSockets on the side of their clients: made of the HTTP server's connections,
pinged, and ended when the client is gone or nobody has had anything to say for too long.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, defaultdict
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


def too_many(held: Sequence[tuple[str, int]], *, most: int) -> list[int]:
    """The places of those in `held` (tenant, bytes) that have to go, so that all together are half
    of `most`: none while they are not more than that, then of the tenant that has most its
    largest, and so on."""
    of_tenant: Counter[str] = Counter()
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, (tenant, size) in sorted(enumerate(held), key=lambda one: one[1][1]):
        of_tenant[tenant] += size
        places[tenant].append(place)
    left = of_tenant.total()
    if left <= most:
        return []
    chosen = []
    while left > most // 2:
        ((tenant, _),) = of_tenant.most_common(1)
        place = places[tenant].pop()
        chosen.append(place)
        of_tenant[tenant] -= held[place][1]
        left -= held[place][1]
    return chosen


@dataclass(frozen=True, slots=True)
class _Open:
    max_idle_s: float
    client: tuple[str, int]
    copy: int  # of its connection
    tenant: str


class Wires:
    """Of the gateway's `port`. `clients`: their addresses, as the kernel says them. `memory_bytes`
    gives the quota of a tenant, 0 for none: its messages alone are no more than that."""

    def __init__(self, *, port: int, memory_bytes: Callable[[str], int]) -> None:
        self.clients: set[tuple[str, int]] = set()
        self._copies: set[int] = set()
        self._port = port
        self._memory_bytes = memory_bytes
        self._wires: dict[Wire, _Open] = {}
        self._held_of: Counter[str] = Counter()  # tenants with many, at the last look

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
        tenant: str,
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
        self._wires[wire] = _Open(max_idle_s, client, copy, tenant)
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
            ended = self._wires.pop(wire)
            self.clients.discard(ended.client)
            self._copies.discard(ended.copy)

    def held_bytes(self, tenant: str) -> int:
        """What its messages on their way held at the last look: memory of ours, for its apps."""
        return self._held_of[tenant]

    async def run(self) -> None:
        """Until it is cancelled."""
        failed = "WebSockets could not be looked at"
        await go_round(self.look, every_s=lambda: _EVERY_S, failed=failed)

    def look(self) -> None:
        now = asyncio.get_running_loop().time()
        for wire, one in list(self._wires.items()):
            if wire.waits_for_us:
                wire.heard_at = max(wire.heard_at, now - PING_AFTER_S)
            quiet = Quiet(now - wire.heard_at, now - wire.pinged_at, now - wire.moved_at)
            todo = chore(quiet, max_idle_s=one.max_idle_s)
            if todo == "ping":
                wire.ping()
            elif todo == "close":
                wire.close(GOING_AWAY, "idle")
            elif todo == "abort":
                wire.abort()
        self._look_at_memory()

    def _look_at_memory(self) -> None:
        wires = list(self._wires)
        held = [(self._wires[wire].tenant, wire.held_bytes) for wire in wires]
        self._held_of = Counter()
        for tenant, size in held:
            self._held_of[tenant] += size
        gone = too_many(held, most=MAX_HELD_BYTES)
        for tenant, size in self._held_of.items():
            most = self._memory_bytes(tenant)
            if most and size > most:
                mine = [place for place, one in enumerate(held) if one[0] == tenant]
                gone += [mine[n] for n in too_many([held[place] for place in mine], most=most)]
        for place in gone:
            wires[place].abort()


async def _answered(link: socket.socket, before: int) -> None:
    """Until the client has been sent something: a frame must not overtake the handshake."""
    end, wait_s = time.monotonic() + _ANSWERED_S, 0.0
    while segments_sent(link) == before:
        if time.monotonic() > end:
            raise ClientDisconnected("the handshake of a WebSocket was not answered")
        await asyncio.sleep(wait_s)
        wait_s = min(0.01, 2 * wait_s + 0.0002)
