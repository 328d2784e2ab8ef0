"""Takes an accepted connection's socket out of the HTTP server's hands.

granian answers a WebSocket's handshake well, but costs 146 KiB for each that is idle, takes
messages of 64 MiB into memory, sends no pings, and cannot close while it reads
(docs/decisions/021-websockets.md). It reads and writes only when it is asked to: so it is not
asked any more, and the WebSocket is spoken here, over a copy of the file descriptor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass

# A shut-in process cannot list its files. They end where so many numbers beyond the highest that
# is known are free.
_GAP = 512
# struct tcp_info (linux/tcp.h) up to data_segs_out, which came with Linux 4.6.
_INFO_BYTES = 160


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that the HTTP server has, as file `number`. A client that goes may leave its
    port to the next one, a proxy to another's client: `inode` tells the two apart."""

    client: tuple[str, int]
    port: int
    number: int
    inode: int


def find(client: tuple[str, int], port: int, *, known: Container[int]) -> Accepted | None:
    """The connection of `client` to our `port`; None when it is gone. Numbers in `known` are not
    looked at."""
    # A free number. What was just accepted is, as a rule, right below it: numbers are given out
    # from the lowest.
    free = os.eventfd(0)
    os.close(free)
    for number in itertools.chain(range(free - 1, -1, -1), _above(free)):
        if number in known or not _is(number, client, port):
            continue
        with contextlib.suppress(OSError):
            return Accepted(client, port, number, os.fstat(number).st_ino)
    return None


def take(one: Accepted) -> int | None:
    """A copy of it; None when it is gone."""
    with contextlib.suppress(OSError):
        copy = os.dup(one.number)
        # The number may be another's by now.
        if os.fstat(copy).st_ino == one.inode and _is(copy, one.client, one.port):
            return copy
        os.close(copy)
    return None


def _above(free: int) -> Iterator[int]:
    missing = 0
    for number in itertools.count(free):
        missing = 0 if _mode(number) else missing + 1
        if missing > _GAP:
            return
        yield number


def _mode(number: int) -> int:
    """0 when there is none of that number."""
    try:
        return os.fstat(number).st_mode
    except OSError:
        return 0


def _is(number: int, client: tuple[str, int], port: int) -> bool:
    if not stat.S_ISSOCK(_mode(number)):  # quicker to tell than by an exception
        return False
    try:
        # Not a copy: `detach` leaves the number to its owner, who may close it meanwhile.
        # As one of AF_INET it would have no room for IPv6's addresses, and give half of one.
        link = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=number)
    except OSError:
        return False
    try:
        peer, ours = link.getpeername(), link.getsockname()
    except OSError:  # not connected, or closed by now
        return False
    finally:
        link.detach()
    if not isinstance(peer, tuple):  # of the Unix kind
        return False
    return (plain(peer[0]), peer[1]) == client and bool(ours[1] == port)


def segments_sent(link: socket.socket) -> int:
    """With data, over all of the connection's life."""
    info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return int.from_bytes(info[_INFO_BYTES - 4 : _INFO_BYTES], sys.byteorder)


def plain(address: str) -> str:
    """As IPv4 writes it, where a socket of both kinds writes it as IPv6 does."""
    return address.removeprefix("::ffff:")
