"""All of a worker's WebSockets on the side of their clients: made of the HTTP server's connections,
pinged, and ended when the client is gone or nobody has had anything to say for too long.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass

from isopod.errors import ClientDisconnected
from isopod.gateway.taken import plain, take
from isopod.gateway.wire import Wire

_log = logging.getLogger(__name__)
_EVERY_S = 5.0
# A client that has been silent for so long is asked whether it is there, and is gone when it has
# not even said that. Proxies on the way close what is quiet for a minute.
PING_AFTER_S = 30.0
GONE_AFTER_S = 90.0
GOING_AWAY = 1001


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


class Wires:
    """Of the gateway's `port`. `numbers`: the open files that these are."""

    def __init__(self, *, port: int) -> None:
        self.numbers: set[int] = set()
        self._port = port
        self._wires: dict[Wire, tuple[float, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self._wires)

    async def open(
        self, client: tuple[str, int], *, max_message_bytes: int, max_idle_s: float
    ) -> Wire:
        """Of a connection whose handshake is complete. Raises ClientDisconnected."""
        taken = take((plain(client[0]), client[1]), self._port, known=self.numbers)
        if taken is None:
            raise ClientDisconnected("the client went away")
        link = socket.socket(fileno=taken[1])
        link.setblocking(False)
        wire = Wire(link, max_message_bytes=max_message_bytes)
        self.numbers.update(taken)
        self._wires[wire] = (max_idle_s, taken)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: wire, link)
        except BaseException:
            self.forget(wire)
            link.close()
            raise
        return wire

    def forget(self, wire: Wire) -> None:
        """It has ended."""
        _, taken = self._wires.pop(wire, (0.0, ()))
        self.numbers.difference_update(taken)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                self.look()
            except Exception:
                _log.exception("WebSockets could not be looked at; trying again")

    def look(self) -> None:
        now = asyncio.get_running_loop().time()
        for wire, (max_idle_s, _) in list(self._wires.items()):
            quiet = Quiet(now - wire.heard_at, now - wire.pinged_at, now - wire.moved_at)
            todo = chore(quiet, max_idle_s=max_idle_s)
            if todo == "ping":
                wire.ping()
            elif todo == "close":
                wire.close(GOING_AWAY, "idle")
            elif todo == "abort":
                wire.abort()
