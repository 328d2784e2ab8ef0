"""Lines between workers: how one worker hands a request to another.

A worker makes no connection and listens for none but clients'. It has one pair of sockets with the
supervisor, which outlives it (see `isopod.host.channel`), and asks there for a line: a pair of
sockets of its own making, one end of which the supervisor passes on to the other worker, if there
is one and this one may ask it (see `isopod.server.switchboard`). Each request is then one more
socket, handed over on the line, so no request waits for another one and the supervisor sees none.

A line ends with either of its workers; the next request asks for another one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from isopod.host.packets import Packets
from isopod.model.tenant import TenantName

# A worker by its number, or the one that is a tenant's own.
Peer = int | TenantName
Take = Callable[[socket.socket], None]


class Lines(Packets):
    """A worker's end of its pair with the supervisor. `told` is given what that says; what others
    hand over is refused until `take_with` says who takes it."""

    def __init__(self, channel: socket.socket, *, told: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(channel)
        self._take_request: Take = socket.socket.close
        self._told = told
        self._to: dict[Peer, _Line] = {}
        self._from: dict[str, _Line] = {}
        self._send({"hello": os.getpid()})

    def take_with(self, take: Take) -> None:
        """`take` is given each request's socket from now on."""
        self._take_request = take

    def hand_over(self, to: Peer, request: socket.socket) -> None:
        """`request` is closed here. When the other worker does not take it, its other end ends."""
        line = self._to.get(to)
        if line is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Nothing is taken on it: who is asked does not ask back.
            refuse: Take = socket.socket.close
            line = self._to[to] = _Line(ours, refuse, lambda: self._forget(to, line))
            self._send({"to": to}, theirs)
        line.hand_over(request)

    def close(self) -> None:
        for line in (*self._to.values(), *self._from.values()):
            line.close()
        self._to.clear()
        self._from.clear()
        super().close()

    def _take(self, body: dict[str, Any], handed: list[int]) -> None:
        if "from" not in body:
            self._told(body)
        elif handed:
            link = socket.socket(fileno=handed.pop())
            # One for each other worker: who asks for another has lost the one before.
            asks = str(body["from"])
            if (before := self._from.pop(asks, None)) is not None:
                before.close()
            self._from[asks] = _Line(link, self._take_request, lambda: self._left(asks))

    def _left(self, asks: str) -> None:
        if (line := self._from.pop(asks, None)) is not None:
            line.close()

    def _forget(self, to: Peer, line: _Line | None) -> None:
        if line is not None and self._to.get(to) is line:
            del self._to[to]
            line.close()


class _Line(Packets):
    def __init__(self, link: socket.socket, take: Take, ended: Callable[[], None]) -> None:
        super().__init__(link)
        self._take_request = take
        self._end = ended

    def hand_over(self, request: socket.socket) -> None:
        self._send({}, request)

    def _take(self, _body: dict[str, Any], handed: list[int]) -> None:
        if handed:
            self._take_request(socket.socket(fileno=handed.pop()))

    def _ended(self) -> None:
        self._end()
