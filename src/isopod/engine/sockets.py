"""Connections as descriptors of a guest's, for modules of others' making.

Preview 1 reads, writes, polls and closes sockets, and cannot make one. `isopod.connect` makes one;
with the number that it gives, every C library and runtime that knows preview 1 does the rest. What
a connection cannot do now suspends the guest's fiber, or is EAGAIN where the guest wants that.

A number that the guest says is a socket's if an instance's `Sockets` hold it, and else a file's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from isopod.engine import wasi
from isopod.engine.memory import GuestMemory
from isopod.engine.streams import MAX_BUFFERS, buffers, gather, scatter

MODULE = "isopod"
# Name -> parameters, all i32, of those that may wait; each gives an errno, and `connect` a
# descriptor or the negative of an errno.
OURS = {"connect": 4}
WAITING = {"sock_recv": 6, "sock_send": 5}
FLAGS_CALL, SHUTDOWN_CALL, CONNECTED_CALL = "fd_fdstat_set_flags", "sock_shutdown", "connected"
# Files have fewer (see `files.MAX_OPEN`), and what `select` takes ends at 1024.
FIRST, MOST = 512, 128
READ, WRITE = 1, 2
_TLS, _NONBLOCKING = 1, 2  # flags of `connect`
_MAX_HOST = 255
_PEEK, _WAIT_ALL = 1, 2
_FDFLAG_NONBLOCK = 4
_STREAM_SOCKET = 6
_RIGHTS = 1 << 1 | 1 << 6 | 1 << 27 | 1 << 28  # read, write, poll, shut down
_STAT = struct.Struct("<BxHxxxxQQ")


class SocketError(Exception):
    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class Sockets(Protocol):
    """One instance's. Called on the fiber: no waiting in here. Numbers are of `connect`, or chosen
    to hurt: each of these raises SocketError for what it does not hold."""

    def holds(self, fd: int) -> bool: ...

    def connect(self, host: str, port: int, *, tls: bool) -> int:
        """Begin to; the descriptor."""

    def connected(self, fd: int) -> int:
        """0, EINPROGRESS, or why it failed."""

    def receive(self, fd: int, most: int, *, peek: bool) -> bytes | None:
        """b"" at the end; None: nothing now."""

    def send(self, fd: int, data: bytes) -> int:
        """How much was taken; 0: nothing now."""

    def shut(self, fd: int, *, reading: bool, writing: bool) -> None: ...

    def close_one(self, fd: int) -> None: ...

    def ready(self, fd: int, mask: int) -> bool:
        """Also when what is asked for failed or would fail."""

    def when_ready(self, wanted: Mapping[int, int], wait_s: float | None) -> None:
        """`Instance.reply` shall come once one of them may be ready, or the time is over."""


class SocketCalls:
    """The guest's calls, in terms of its Sockets. Each gives its number, or None when the guest
    waits."""

    def __init__(
        self,
        sockets: Sockets,
        memory: Callable[[], GuestMemory],
        wait: Callable[[Callable[[], None]], None],
        answer: Callable[[int], None],
    ) -> None:
        """`wait` suspends the guest until its reply, and then calls; `answer` is what the call that
        is under way gives."""
        self.sockets = sockets
        self._memory = memory
        self._wait = wait
        self._answer = answer
        self._nonblocking: set[int] = set()

    def call(self, name: str, arguments: list[int]) -> int | None:
        if name == "connect":
            return self._connect(*arguments)
        if name == "fd_read":
            return self._receive(*arguments)
        if name == "fd_write":
            return self._send(*arguments)
        if not self.sockets.holds(arguments[0]):
            return wasi.ENOTSOCK
        if name == "sock_recv":
            fd, at, count, flags, done, flags_out = arguments
            if flags & ~_PEEK:
                return wasi.ENOTSUP
            self._memory().write(flags_out, bytes(2))
            return self._receive(fd, at, count, done, peek=bool(flags & _PEEK))
        fd, at, count, _flags, done = arguments
        return self._send(fd, at, count, done)

    def connected(self, fd: int) -> int:
        return self.sockets.connected(fd) if self.sockets.holds(fd) else wasi.EBADF

    def shut_down(self, fd: int, how: int) -> int:
        if not self.sockets.holds(fd):
            return wasi.ENOTSOCK
        try:
            self.sockets.shut(fd, reading=bool(how & 1), writing=bool(how & 2))
        except SocketError as error:
            return error.errno
        return 0

    def close(self, fd: int) -> int:
        self._nonblocking.discard(fd)
        self.sockets.close_one(fd)
        return 0

    def stat(self, fd: int, out: int) -> int:
        flags = _FDFLAG_NONBLOCK if fd in self._nonblocking else 0
        self._memory().write(out, _STAT.pack(_STREAM_SOCKET, flags, _RIGHTS, 0))
        return 0

    def set_flags(self, fd: int, flags: int) -> int:
        if flags & ~_FDFLAG_NONBLOCK:
            return wasi.EINVAL
        (self._nonblocking.add if flags else self._nonblocking.discard)(fd)
        return 0

    def polled(self, fd: int, mask: int) -> int | None:
        """What `wasi.plan_poll` asks of a descriptor."""
        if not self.sockets.holds(fd):
            return wasi.EBADF if FIRST <= fd < FIRST + MOST else 0
        return 0 if self.sockets.ready(fd, mask) else None

    def _connect(self, at: int, size: int, port: int, flags: int) -> int | None:
        if size > _MAX_HOST or port > 0xFFFF or flags & ~(_TLS | _NONBLOCKING):
            return -wasi.EINVAL
        host = self._memory().read(at, size).decode("utf-8", "replace")
        try:
            fd = self.sockets.connect(host, port, tls=bool(flags & _TLS))
        except SocketError as error:
            return -error.errno
        if flags & _NONBLOCKING:
            self._nonblocking.add(fd)
            return fd

        def attempt() -> int:
            errno = self.sockets.connected(fd)
            if errno == wasi.EINPROGRESS:
                return wasi.EAGAIN
            if errno:
                self.sockets.close_one(fd)
            return -errno if errno else fd

        return self._now_or_later(fd, WRITE, attempt)

    def _receive(
        self, fd: int, at: int, count: int, done: int, *, peek: bool = False
    ) -> int | None:
        if count > MAX_BUFFERS:
            return wasi.EINVAL
        memory = self._memory()
        pieces = buffers(memory, at, count)
        size = sum(size for _, size in pieces)
        for one in pieces:  # now, and not when something comes
            memory.base(*one)
        memory.write(done, bytes(4))

        def attempt() -> int:
            try:
                data = self.sockets.receive(fd, size, peek=peek) if size else b""
            except SocketError as error:
                return error.errno
            if data is None:
                return wasi.EAGAIN
            scatter(memory, pieces, data)
            memory.write(done, len(data).to_bytes(4, "little"))
            return 0

        return self._now_or_later(fd, READ, attempt)

    def _send(self, fd: int, at: int, count: int, done: int) -> int | None:
        if count > MAX_BUFFERS:
            return wasi.EINVAL
        memory = self._memory()
        data = gather(memory, buffers(memory, at, count))
        memory.write(done, bytes(4))

        def attempt() -> int:
            try:
                sent = self.sockets.send(fd, data) if data else 0
            except SocketError as error:
                return error.errno
            if data and not sent:
                return wasi.EAGAIN
            memory.write(done, sent.to_bytes(4, "little"))
            return 0

        return self._now_or_later(fd, WRITE, attempt)

    def _now_or_later(self, fd: int, mask: int, attempt: Callable[[], int]) -> int | None:
        number = attempt()
        if number != wasi.EAGAIN or fd in self._nonblocking:
            return number

        def again() -> None:
            found = self._now_or_later(fd, mask, attempt)
            if found is not None:
                self._answer(found)

        self._wait(again)
        self.sockets.when_ready({fd: mask}, None)
        return None
