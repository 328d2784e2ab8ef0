"""Datagrams for a worker, relayed by the broker.

A connected UDP socket still sends to whatever address `sendto` names: a worker that was taken over
would reach everything with it. So it gets one end of a pair, and what goes through that goes to
one address and comes from there. What there is no room for is dropped, as datagrams are.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

_LARGEST = 64 << 10
_AT_A_TIME = 32  # then others


class Relay:
    """Between a connected UDP socket and the worker's pair, until one of them ends."""

    def __init__(
        self, outside: socket.socket, inside: socket.socket, *, ended: Callable[[], None]
    ) -> None:
        self._outside, self._inside, self._ended = outside, inside, ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(outside.fileno(), self._move, outside, inside)
        self._loop.add_reader(inside.fileno(), self._move, inside, outside)

    def close(self) -> None:
        """Safe to call twice. The worker's end then reads as closed."""
        if self._outside.fileno() < 0:
            return
        for one in (self._outside, self._inside):
            self._loop.remove_reader(one.fileno())
            one.close()
        self._ended()

    def _move(self, source: socket.socket, target: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                data = source.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # the peer says that nobody listens
                self.close()
                return
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
