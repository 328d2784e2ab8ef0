"""How the process that connects gets its ends of the workers' channels (see `host.channel`): from
the supervisor, whenever there is a worker more. So it goes on when workers come and go, with what
it relays, and one that follows it asks for all of them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from isopod.host.channel import BrokerServer
from isopod.host.packets import Packets

# That wait for a process which does not read: one that follows it asks for all anyway.
_MAX_WAITING = 4096


@dataclass(frozen=True, slots=True)
class _End:
    socket: socket.socket
    tenant: str


class GivenChannels(Packets):
    """The supervisor's side."""

    def __init__(self, pair: socket.socket) -> None:
        super().__init__(pair)
        self._ends: dict[int, _End] = {}
        self._last = 0

    def add(self, end: socket.socket, *, tenant: str) -> int:
        """Its number. `end` stays the caller's; `tenant` is the one whose own worker it is of, ""
        for a shared one."""
        # A copy that is made here would make all of them wait again, also those elsewhere.
        end.setblocking(False)
        self._last += 1
        self._ends[self._last] = _End(end, tenant)
        self._give(self._last)
        return self._last

    def remove(self, number: int) -> None:
        """It ends by itself, when its worker and the supervisor have closed it."""
        self._ends.pop(number, None)

    def _give(self, number: int) -> None:
        one = self._ends[number]
        if len(self._unsent) < _MAX_WAITING:
            self._send({"channel": number, "tenant": one.tenant}, one.socket.dup())

    def _take(self, body: dict[str, object], _handed: list[int]) -> None:
        if "hello" in body:  # a process that has begun
            for number in self._ends:
                self._give(number)


class TakenChannels(Packets):
    """The side of the process that connects. `serve` begins to answer what is asked on one."""

    def __init__(
        self, pair: socket.socket, serve: Callable[[socket.socket, str], BrokerServer]
    ) -> None:
        super().__init__(pair)
        self._serve = serve
        self._servers: dict[int, BrokerServer] = {}
        self._send({"hello": os.getpid()})

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        super().close()

    def _take(self, body: dict[str, object], handed: list[int]) -> None:
        number = int(str(body["channel"]))
        # Also what was on its way to a process before this one comes, and then all of them again.
        if handed and number not in self._servers:
            self._servers = {n: one for n, one in self._servers.items() if not one.closed}
            end = socket.socket(fileno=handed.pop())
            self._servers[number] = self._serve(end, str(body["tenant"]))
