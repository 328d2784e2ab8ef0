"""Datagrams for a worker, relayed by the broker.

A connected UDP socket still sends to whatever address `sendto` names: a worker that was taken over
would reach everything with it. So it gets one end of a pair, and what goes through that goes to
one address and comes from there. What there is no room for is dropped, as datagrams are. A tenant
that sends or gets more than its pace is not read from for a while: a worker's end is full then, and
what a peer sends is dropped by the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from isopod.host.pace import Pace

_LARGEST = 64 << 10
_AT_A_TIME = 32  # then others
_PAUSE_S = 0.01  # so that many relays of one tenant do not look all the time


class Relay:
    """Between a connected UDP socket and the worker's pair, until one of them ends."""

    def __init__(
        self,
        outside: socket.socket,
        inside: socket.socket,
        *,
        pace: Pace,
        ended: Callable[[], None],
    ) -> None:
        """`pace`: of all relays of the tenant."""
        self._outside, self._inside, self._ended = outside, inside, ended
        self._pace = pace
        self._waits: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(outside.fileno(), self._move, outside, inside)
        self._loop.add_reader(inside.fileno(), self._move, inside, outside)

    def close(self) -> None:
        """Safe to call twice. The worker's end then reads as closed."""
        if self._outside.fileno() < 0:
            return
        for timer in self._waits.values():
            timer.cancel()
        for one in (self._outside, self._inside):
            self._loop.remove_reader(one.fileno())
            one.close()
        self._ended()

    def _move(self, source: socket.socket, target: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            if not self._pace.has_one():
                self._pause(source, target)
                return
            try:
                data = source.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # the peer says that nobody listens
                self.close()
                return
            self._pace.take()
            if not data and source is self._inside:  # the worker closed its end
                self.close()
                return
            try:
                target.send(data)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # that one is lost, and no more
                    self.close()
                    return

    def _pause(self, source: socket.socket, target: socket.socket) -> None:
        self._loop.remove_reader(source.fileno())
        self._waits[source] = self._loop.call_later(
            max(_PAUSE_S, self._pace.wait_s()), self._resume, source, target
        )

    def _resume(self, source: socket.socket, target: socket.socket) -> None:
        del self._waits[source]
        self._loop.add_reader(source.fileno(), self._move, source, target)
