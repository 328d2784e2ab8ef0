"""One instance's connections: its socket calls, answered from sockets that were made for it.

A frame is the operation, u32 the guest's number for the socket, u32 milliseconds to wait
(0xffffffff: for ever), and what the operation takes. The answer is a zero byte and what it gives,
or a byte 1, an errno's name, a line end and a text. A guest waits for one call at a time. See
`guest/isopod_socket.py`.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from isopod.errors import GuestProtocolError
from isopod.host.outside import Outside, OutsideError

MAX_PIECE = 256 << 10
_FOR_EVER = 0xFFFFFFFF
_HEAD = struct.Struct("<cII")
_MAX_POLLED = 1024
_MAX_NAMES = 256  # whose addresses are remembered
_READ, _WRITE = 1, 2


class SocketWait:
    """A call that is answered when a socket is ready. Callbacks, not a task: between a query and
    its answer this is most of what the host does."""

    def __init__(
        self,
        waits: set[SocketWait],
        made: socket.socket,
        mask: int,
        wait_ms: int,
        attempt: Callable[[], bytes],
    ) -> None:
        self._waits = waits
        self._fd = made.fileno()
        self._reads = mask == _READ
        self._wait_ms = wait_ms
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, take: Callable[[bytes], None], failed: Callable[[Exception], None]) -> None:
        """One of the two is called once, unless `stop` is before. `failed`: our own fault."""
        self._take, self._failed = take, failed
        self._waits.add(self)
        (self._loop.add_reader if self._reads else self._loop.add_writer)(self._fd, self._ready)
        if self._wait_ms != _FOR_EVER:
            self._timer = self._loop.call_later(self._wait_ms / 1e3, self._too_late)

    def stop(self) -> None:
        if self in self._waits:
            self._waits.discard(self)
            (self._loop.remove_reader if self._reads else self._loop.remove_writer)(self._fd)
            if self._timer is not None:
                self._timer.cancel()

    def _ready(self) -> None:
        try:
            answer = self._attempt()
        except BlockingIOError:
            return
        except (OutsideError, OSError) as error:
            answer = _failed(error)
        except Exception as error:
            self.stop()
            self._failed(error)
            return
        self.stop()
        self._take(answer)

    def _too_late(self) -> None:
        self.stop()
        self._take(_failed(TimeoutError()))


Answer = bytes | SocketWait | Coroutine[Any, Any, bytes]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    per_instance: int = 64
    per_app: int = 1024  # in one worker: one at least for each of its instances (1,000 at most)


@dataclass(slots=True)
class OpenConnections:
    """How many each app of this worker has."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    by_app: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket | None = None
    making: asyncio.Task[None] | None = None
    error: OutsideError | None = None  # of making it, until it was told
    names: bytes = b""  # address and port of each end; the system forgets them at the end


class Connections:
    def __init__(self, app: str, *, outside: Outside, open_now: OpenConnections) -> None:
        self._app = app
        self._outside = outside
        self._open_now = open_now
        self._connections: dict[int, _Connection] = {}
        self._names: OrderedDict[str, list[str]] = OrderedDict()  # address -> looked up for it
        self._watches: set[_Watch] = set()
        self._waits: set[SocketWait] = set()
        self.sent_bytes = 0
        self.received_bytes = 0
        self._operations: dict[bytes, Callable[[int, int, bytes], Answer]] = {
            b"c": self._connect,
            b"u": self._connect_datagrams,
            b"s": self._send,
            b"r": self._receive,
            b"p": self._poll,
            b"x": self._close_one,
            b"h": self._shut,
            b"n": self._addresses,
            b"e": self._take_error,
            b"d": self._resolve,
            b"k": self._keep_alive,
        }

    @property
    def count(self) -> int:
        return len(self._connections)

    def call(self, frame: bytes) -> Answer:
        """`frame` without its first byte. Raises GuestProtocolError."""
        try:
            operation, number, wait_ms = _HEAD.unpack_from(frame)
            run = self._operations[operation]
        except (struct.error, KeyError):
            raise GuestProtocolError("the guest sent a network call that is none") from None
        try:
            answer = run(number, wait_ms, frame[_HEAD.size :])
        except (OutsideError, OSError) as error:
            return _failed(error)
        return answer if isinstance(answer, bytes | SocketWait) else _translated(answer)

    def close(self) -> None:
        for watch in list(self._watches):
            watch.stop()
        for wait in list(self._waits):
            wait.stop()
        for number in list(self._connections):
            self._drop(number)

    # -- making and ending ------------------------------------------------------------------

    def _connect_datagrams(self, number: int, wait_ms: int, rest: bytes) -> Answer:
        return self._connect(number, wait_ms, rest, datagrams=True)

    def _connect(
        self, number: int, wait_ms: int, rest: bytes, *, datagrams: bool = False
    ) -> Answer:
        host, port = _host_and_port(rest)
        there = self._connections.get(number)
        if there is not None:
            if there.making is not None:
                raise OutsideError("EALREADY")
            if there.socket is not None:
                raise OutsideError("EISCONN")
            self._drop(number)
        open_now = self._open_now
        limits = open_now.limits
        if len(self._connections) >= limits.per_instance:
            raise OutsideError(
                "EMFILE", f"isopod: an instance may have {limits.per_instance} connections open"
            )
        if open_now.by_app[self._app] >= limits.per_app:
            raise OutsideError(
                "EMFILE", f"isopod: an app may have {limits.per_app} connections open"
            )
        open_now.by_app[self._app] += 1
        connection = self._connections[number] = _Connection()
        connection.making = asyncio.get_running_loop().create_task(
            self._make(connection, host, port, datagrams)
        )
        if wait_ms == 0:
            raise OutsideError("EINPROGRESS")
        return self._made(number, connection, connection.making, wait_ms)

    async def _make(self, connection: _Connection, host: str, port: int, datagrams: bool) -> None:
        names = self._names.get(host, [])
        address = host if names else ""
        try:
            connection.socket = made = await self._outside.connect(
                self._app, [*reversed(names[-4:]), host], address, port, datagrams=datagrams
            )
            if datagrams:
                return  # the guest knows the names, and a pair has none
            local, peer = made.getsockname(), made.getpeername()
            connection.names = f"{local[0]}\n{local[1]}\n{peer[0]}\n{peer[1]}".encode()
        except OutsideError as error:
            connection.error = error
        except OSError:  # its peer is gone already
            connection.error = OutsideError("ECONNRESET")
        finally:
            connection.making = None

    async def _made(
        self, number: int, connection: _Connection, making: asyncio.Task[None], wait_ms: int
    ) -> bytes:
        done, _ = await asyncio.wait({making}, timeout=_seconds(wait_ms))
        if not done:
            self._drop(number)
            raise TimeoutError
        if connection.error is not None:
            error = connection.error
            self._drop(number)
            raise error
        return b"\0"

    def _close_one(self, number: int, _wait_ms: int, _rest: bytes) -> Answer:
        self._drop(number)
        return b"\0"

    def _drop(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is None:
            return
        self._open_now.by_app[self._app] -= 1
        if self._open_now.by_app[self._app] <= 0:
            del self._open_now.by_app[self._app]
        if connection.making is not None:
            connection.making.cancel()
        if connection.socket is not None:
            connection.socket.close()

    def _shut(self, number: int, _wait_ms: int, rest: bytes) -> Answer:
        how = {b"r": socket.SHUT_RD, b"w": socket.SHUT_WR}.get(rest[:1], socket.SHUT_RDWR)
        self._open(number).shutdown(how)
        return b"\0"

    def _open(self, number: int) -> socket.socket:
        connection = self._connections.get(number)
        if connection is None or connection.socket is None:
            if connection is not None and connection.error is not None:
                error, connection.error = connection.error, None
                raise error
            raise OutsideError("ENOTCONN")
        return connection.socket

    # -- data -------------------------------------------------------------------------------

    def _send(self, number: int, wait_ms: int, rest: bytes) -> Answer:
        made = self._open(number)
        data = rest[:MAX_PIECE]

        def attempt() -> bytes:
            sent = made.send(data)
            self.sent_bytes += sent
            return b"\0" + sent.to_bytes(4, "little")

        return self._now_or_later(made, _WRITE, wait_ms, attempt)

    def _receive(self, number: int, wait_ms: int, rest: bytes) -> Answer:
        made = self._open(number)
        size = min(int.from_bytes(rest[:4], "little"), MAX_PIECE)
        flags = socket.MSG_PEEK if rest[4:5] == b"p" else 0

        def attempt() -> bytes:
            data = made.recv(size, flags)
            self.received_bytes += 0 if flags else len(data)
            return b"\0" + data

        return self._now_or_later(made, _READ, wait_ms, attempt)

    def _now_or_later(
        self, made: socket.socket, mask: int, wait_ms: int, attempt: Callable[[], bytes]
    ) -> Answer:
        try:
            return attempt()
        except BlockingIOError:
            if wait_ms == 0:
                raise
        return SocketWait(self._waits, made, mask, wait_ms, attempt)

    # -- readiness --------------------------------------------------------------------------

    def _poll(self, _number: int, wait_ms: int, rest: bytes) -> Answer:
        if len(rest) % 5 or len(rest) > 5 * _MAX_POLLED:
            raise GuestProtocolError("the guest polls what is no list of sockets")
        wanted = dict(struct.iter_unpack("<IB", rest))
        ready = self.ready(wanted)
        if ready or wait_ms == 0:
            return _packed(ready)
        return self._poll_later(wanted, wait_ms)

    def watch(self, wanted: dict[int, int], changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when one of them may be ready, once or more, until what this gives is
        called. Only of what is not ready now."""
        sockets, making = {}, []
        for number, mask in wanted.items():
            connection = self._connections[number]  # else it would be ready
            if connection.socket is not None:
                sockets[connection.socket] = mask
            elif connection.making is not None:
                making.append(connection.making)
        watch = _Watch(self._watches, sockets, changed)
        for task in making:
            task.add_done_callback(watch.wake)
        watch.__enter__()
        return watch.end

    def ready(self, wanted: dict[int, int]) -> dict[int, int]:
        """What is ready now; one that is not connected, or failed, is ready for everything."""
        ready, asked, poll = {}, {}, select.poll()
        for number, mask in wanted.items():
            connection = self._connections.get(number)
            if connection is None or connection.error is not None:
                ready[number] = mask
            elif connection.socket is not None:
                asked[connection.socket.fileno()] = number
                poll.register(
                    connection.socket,
                    (select.POLLIN if mask & _READ else 0)
                    | (select.POLLOUT if mask & _WRITE else 0),
                )
        for fd, event in poll.poll(0) if asked else ():
            number = asked[fd]
            ended = event & (select.POLLHUP | select.POLLERR)
            mask = (_READ if event & select.POLLIN or ended else 0) | (
                _WRITE if event & select.POLLOUT or ended else 0
            )
            if mask & wanted[number]:
                ready[number] = mask & wanted[number]
        return ready

    async def _poll_later(self, wanted: dict[int, int], wait_ms: int) -> bytes:
        try:
            async with asyncio.timeout(_seconds(wait_ms)):
                while not (ready := self.ready(wanted)):
                    changed = asyncio.Event()
                    stop = self.watch(wanted, changed.set)
                    try:
                        await changed.wait()
                    finally:
                        stop()
        except TimeoutError:
            ready = {}
        return _packed(ready)

    # -- names and settings -----------------------------------------------------------------

    def _resolve(self, _number: int, _wait_ms: int, rest: bytes) -> Answer:
        host, port = _host_and_port(rest)
        return self._look_up(host, port)

    async def _look_up(self, host: str, port: int) -> bytes:
        found = await self._outside.resolve(self._app, host, port)
        for address in found:
            names = self._names.setdefault(address, [])
            if address == host:
                continue
            if host in names:
                names.remove(host)
            names.append(host)
            del names[:-8]
            self._names.move_to_end(address)
        while len(self._names) > _MAX_NAMES:
            self._names.popitem(last=False)
        return b"\0" + "\n".join(found).encode()

    def _addresses(self, number: int, _wait_ms: int, _rest: bytes) -> Answer:
        self._open(number)
        return b"\0" + self._connections[number].names

    def _take_error(self, number: int, _wait_ms: int, _rest: bytes) -> Answer:
        connection = self._connections.get(number)
        if connection is None:
            return b"\0"
        if connection.error is not None:
            error = connection.error
            self._drop(number)
            return b"\0" + f"{error.name}\n{error.text}".encode()
        code = 0
        if connection.socket is not None:
            code = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return b"\0" + errno.errorcode.get(code, "").encode()

    def _keep_alive(self, number: int, _wait_ms: int, rest: bytes) -> Answer:
        value = int(rest[:1] == b"1")
        self._open(number).setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, value)
        return b"\0"


class _Watch:
    """Waits for sockets, and can be stopped from outside, before they are closed."""

    def __init__(
        self,
        watches: set[_Watch],
        sockets: dict[socket.socket, int],
        changed: Callable[[], None],
    ) -> None:
        self._changed: Callable[[], None] | None = changed
        self._loop = asyncio.get_running_loop()
        self._watches = watches
        self._sockets = {made.fileno(): mask for made, mask in sockets.items()}

    def wake(self, *_: object) -> None:
        if self._changed is not None:
            self._changed()

    def __enter__(self) -> _Watch:
        self._watches.add(self)
        for fd, mask in self._sockets.items():
            if mask & _READ:
                self._loop.add_reader(fd, self.wake)
            if mask & _WRITE:
                self._loop.add_writer(fd, self.wake)
        return self

    def stop(self) -> None:
        sockets, self._sockets = self._sockets, {}
        for fd, mask in sockets.items():
            if mask & _READ:
                self._loop.remove_reader(fd)
            if mask & _WRITE:
                self._loop.remove_writer(fd)

    def end(self) -> None:
        self._changed = None
        self.stop()
        self._watches.discard(self)

    def __exit__(self, *_: object) -> None:
        self.end()


def _host_and_port(rest: bytes) -> tuple[str, int]:
    port = int.from_bytes(rest[:4], "little")
    if len(rest) < 5 or len(rest) > 1024 or port > 65535:
        raise OutsideError("EINVAL", "isopod: no host and port")
    return rest[4:].decode("utf-8", "replace"), port


def _seconds(wait_ms: int) -> float | None:
    return None if wait_ms == _FOR_EVER else wait_ms / 1e3


def _packed(ready: dict[int, int]) -> bytes:
    return b"\0" + b"".join(struct.pack("<IB", *one) for one in ready.items())


async def _translated(answer: Awaitable[bytes]) -> bytes:
    try:
        return await answer
    except (OutsideError, OSError) as error:
        return _failed(error)


def _failed(error: OutsideError | OSError) -> bytes:
    if isinstance(error, OutsideError):
        return f"\1{error.name}\n{error.text}".encode("utf-8", "replace")
    if isinstance(error, TimeoutError) and error.errno is None:
        return b"\1TIMEOUT\n"
    return f"\1{errno.errorcode.get(error.errno or 0, 'EIO')}\n".encode()
