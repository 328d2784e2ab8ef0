"""Standard input, output and error of a guest, without the engine's threads.

The engine reads and writes them in threads of its own, and has no way to wait for a client. So for
modules that use them (`Imports(streams=True)`) the two calls are ours: what an instance's `Streams`
cannot take or give now suspends the guest's fiber, until `Instance.reply`.
"""

from __future__ import annotations

import struct
from typing import Protocol

from isopod.engine.memory import GuestMemory

STREAM_CALLS = ("fd_read", "fd_write")
STAT_CALL = "fd_fdstat_get"
STDIN, STDOUT, STDERR = 0, 1, 2
# One call: POSIX lets it do less than it was asked to, and the C library asks again.
MAX_PASS_BYTES = 256 << 10
MAX_BUFFERS = 1024  # IOV_MAX


_STAT = struct.Struct("<BxHxxxxQQ")  # type, flags, rights, rights of what is opened below it
_UNKNOWN_TYPE, _MAY_READ, _MAY_WRITE = 0, 1 << 1, 1 << 6


def stat_of(fd: int) -> bytes:
    """What a stream is (`fdstat` of preview 1): no terminal, so that the C library writes when its
    buffer is full and not at each line."""
    return _STAT.pack(_UNKNOWN_TYPE, 0, _MAY_READ if fd == STDIN else _MAY_WRITE, 0)


class Streams(Protocol):
    """Called on the fiber: no waiting in here. What it raises ends the guest."""

    def read(self, most: int) -> bytes | None:
        """b"" at the end; None: not now, and `Instance.reply` brings it."""

    def write(self, fd: int, data: bytes) -> bool:
        """It has the data. False: the guest shall wait for `Instance.reply`."""


def buffers(memory: GuestMemory, at: int, count: int) -> list[tuple[int, int]]:
    """Address and size of those that are not empty, as far as one call goes."""
    found = []
    left = MAX_PASS_BYTES
    words = memoryview(memory.read(at, 8 * count)).cast("I")
    for number in range(count):
        size = min(words[2 * number + 1], left)
        if size:
            found.append((words[2 * number], size))
            left -= size
        if not left:
            break
    return found


def gather(memory: GuestMemory, pieces: list[tuple[int, int]]) -> bytes:
    if len(pieces) == 1:
        return memory.read(*pieces[0])
    return b"".join(memory.read(at, size) for at, size in pieces)


def scatter(memory: GuestMemory, pieces: list[tuple[int, int]], data: bytes) -> None:
    view = memoryview(data)
    for at, size in pieces:
        if not view:
            return
        memory.write(at, bytes(view[:size]))
        view = view[size:]
