"""Closes connections that hold a place and say nothing.

The HTTP server takes so many connections and then no more. It gives a client 15 s for its headers,
but no bound at all for its first byte (or for the first part of "PRI * HTTP/2.0"): a few thousand
silent connections would close the node to everybody. So we look at the sockets ourselves: the
kernel knows what each has received and when (tcp_info, linux/tcp.h). `to_close` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass

from isopod.gateway.rounds import go_round
from isopod.gateway.taken import plain

# No request is shorter than HTTP/2's preface (RFC 9113 3.4) but a malformed one.
_SILENT_BYTES = 24
SILENT_S = 15.0
# When there are many: who is silent for so long; and who is quiet for so long, if its address has
# more than its part. What has a request under way may be quiet as well.
HASTY_S = 0.5
QUIET_S = 5.0
_EVERY_S = 0.5
_HASTE_EVERY_S = 0.25
# A shut-in process cannot list its files. They end where so many numbers beyond the highest that
# was ever seen are free.
_GAP = 512

# struct tcp_info: last_data_sent, last_data_recv (both in ms), bytes_received.
_INFO_BYTES = 136
_LAST_SENT, _LAST_RECEIVED = struct.Struct("=I"), struct.Struct("=I")
_RECEIVED = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Connection:
    """`quiet_s`: since anything came or went, or since it was made."""

    fd: int
    address: str
    received_bytes: int
    quiet_s: float
    port: int = 0  # the client's

    @property
    def silent(self) -> bool:
        return self.received_bytes < _SILENT_BYTES


def to_close(
    connections: Sequence[Connection], *, most: int, trusted: Collection[str]
) -> list[Connection]:
    """Those that are silent for too long; and, where more than half of `most` are taken, others
    until half are: silent ones first, of addresses with the most connections, then quiet ones of
    addresses above their part. A trusted proxy's address stands for many clients."""
    closed = [one for one in connections if one.silent and one.quiet_s >= SILENT_S]
    excess = len(connections) - len(closed) - most // 2
    if excess <= 0:
        return closed
    has = Counter(one.address for one in connections)
    part = most / 2 / len(has)
    left = [one for one in connections if not (one.silent and one.quiet_s >= SILENT_S)]
    left.sort(key=lambda one: (-has[one.address], -one.quiet_s))
    hasty = [one for one in left if one.silent and one.quiet_s >= HASTY_S]
    quiet = [
        one
        for one in left
        if not one.silent
        and one.quiet_s >= QUIET_S
        and has[one.address] > part
        and one.address not in trusted
    ]
    return closed + (hasty + quiet)[:excess]


class ConnectionWatch:
    """Looks at this process's connections on `port`, of which there may be `most`, but for
    those of clients in `but`."""

    def __init__(
        self, *, port: int, most: int, trusted: Collection[str], but: Container[tuple[str, int]]
    ) -> None:
        self.closed = 0
        self.open = 0  # at the last look
        self._highest = 0  # number of an open file
        self._port = port
        self._most = most
        self._trusted = frozenset(trusted)
        self._but = but

    async def run(self) -> None:
        """Until it is cancelled. In a thread: thousands of sockets take some milliseconds."""
        await go_round(
            lambda: asyncio.to_thread(self.look),
            every_s=lambda: _HASTE_EVERY_S if self.open > self._most // 2 else _EVERY_S,
            failed="connections could not be looked at",
        )

    def look(self) -> None:
        connections = list(self._connections())
        self.open = len(connections)
        for one in to_close(connections, most=self._most, trusted=self._trusted):
            if _close(one, self._port):
                self.closed += 1
                self.open -= 1

    def _connections(self) -> Iterator[Connection]:
        for fd in itertools.count():
            try:
                # Not a copy: `detach` leaves the number to its owner, who may close it meanwhile.
                link = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=fd)
            except OSError as error:
                if error.errno != errno.EBADF:
                    self._highest = max(self._highest, fd)
                elif fd > self._highest + _GAP:
                    return
                continue
            self._highest = max(self._highest, fd)
            try:
                found = _read(link, fd, self._port)
            except (OSError, IndexError):  # none of TCP, or closed by now
                continue
            finally:
                link.detach()
            if found is not None and (plain(found.address), found.port) not in self._but:
                yield found


def _read(link: socket.socket, fd: int, port: int) -> Connection | None:
    info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES or link.getsockname()[1] != port:
        return None
    peer = link.getpeername()
    quiet_ms = min(_LAST_SENT.unpack_from(info, 44)[0], _LAST_RECEIVED.unpack_from(info, 52)[0])
    return Connection(
        fd=fd,
        address=str(peer[0]),
        received_bytes=_RECEIVED.unpack_from(info, 128)[0],
        quiet_s=quiet_ms / 1e3,
        port=peer[1],
    )


def _close(one: Connection, port: int) -> bool:
    """Shut it down; its owner sees the end of it. The number may be another's by now: what is shut
    down is a copy that was looked at again."""
    with contextlib.suppress(OSError):
        link = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=os.dup(one.fd))
        with link:
            now = _read(link, one.fd, port)
            same = now is not None and (now.address, now.received_bytes) == (
                one.address,
                one.received_bytes,
            )
            if same and now is not None and now.quiet_s >= one.quiet_s:
                link.shutdown(socket.SHUT_RDWR)
                return True
    return False
