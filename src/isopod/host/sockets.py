"""The connections of a guest that has them as descriptors (see `isopod.engine.sockets`).

What it may reach is decided by the broker, as for every connection of an app. Why one was not made
is an errno for the guest, and a line for its log.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping

from isopod.engine.sockets import FIRST, MOST, SocketError
from isopod.host.capabilities import World
from isopod.host.lines import READ, WRITE, Line, TlsLine
from isopod.host.outside import OutsideError

_TLS_S = 30.0
# Of preview 1 (witx).
_NUMBERS = {
    **{"E2BIG": 1, "EACCES": 2, "EAGAIN": 6, "EBADF": 8, "ECONNABORTED": 13, "ECONNREFUSED": 14},
    **{"ECONNRESET": 15, "EHOSTUNREACH": 23, "EINPROGRESS": 26, "EINVAL": 28, "EIO": 29},
    **{"EMFILE": 33, "ENETUNREACH": 40, "ENOTCONN": 53, "ENOTSUP": 58, "EPIPE": 64, "EPROTO": 65},
    **{"ETIMEDOUT": 73},
}
_LARGEST_LINE = 500


class _Connection:
    """`line`: None while it is being made, and when that failed. `errno`: why it did."""

    def __init__(self) -> None:
        self.making: asyncio.Task[None] | None = None
        self.line: Line | None = None
        self.errno = 0


class GuestSockets:
    """Fulfils `isopod.engine.sockets.Sockets`, for one instance after another."""

    def __init__(
        self,
        world: World | None,
        *,
        app: str,
        answer: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """`world`: what it may reach as `app`; None where the app is built. `answer`: reply to the
        instance, which waits. `say`: into the app's log."""
        self._world = world
        self._app = app
        self._answer = answer
        self._say = say
        self._open: dict[int, _Connection] = {}
        self._sent_before = 0  # by what is closed
        self._wanted: dict[int, int] = {}
        self._watched: list[tuple[Callable[[int], object], int]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def sent_bytes(self) -> int:
        open_now = (one.line.sent_bytes for one in self._open.values() if one.line is not None)
        return self._sent_before + sum(open_now)

    def close(self) -> None:
        """Every connection. Safe to call twice."""
        self._wait_no_more()
        for fd in list(self._open):
            self.close_one(fd)

    # -- what the guest asks, on its fiber --------------------------------------------------

    def holds(self, fd: int) -> bool:
        return fd in self._open

    def connect(self, host: str, port: int, *, tls: bool) -> int:
        world, where = self._world, f"{host!r}, port {port}"
        if world is None:
            self._say(f"no connection to {where} while the app is deployed; connect in a request")
            raise _error("ENETUNREACH")
        limits, counts = world.open_now.limits, world.open_now.by_app
        if len(self._open) >= min(limits.per_instance, MOST) or counts[self._app] >= limits.per_app:
            self._say(f"no connection to {where}: too many are open")
            raise _error("EMFILE")
        counts[self._app] += 1
        fd = next(fd for fd in range(FIRST, FIRST + MOST) if fd not in self._open)
        made = self._open[fd] = _Connection()
        making = self._make(made, world, host, port, tls=tls)
        made.making = asyncio.get_running_loop().create_task(making)
        return fd

    def connected(self, fd: int) -> int:
        made = self._open[fd]
        return _NUMBERS["EINPROGRESS"] if made.making is not None else made.errno

    def receive(self, fd: int, most: int, *, peek: bool) -> bytes | None:
        try:
            line = self._line(fd)
            return None if line is None else line.receive(most, peek=peek)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _failed(error) from None

    def send(self, fd: int, data: bytes) -> int:
        try:
            line = self._line(fd)
            return 0 if line is None else line.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _failed(error) from None

    def shut(self, fd: int, *, reading: bool, writing: bool) -> None:
        how = {(True, False): socket.SHUT_RD, (False, True): socket.SHUT_WR}
        line = self._line(fd)
        if line is None or not (reading or writing):
            raise _error("EINVAL" if line else "ENOTCONN")
        try:
            line.shut(how.get((reading, writing), socket.SHUT_RDWR))
        except OSError as error:
            raise _failed(error) from None

    def close_one(self, fd: int) -> None:
        made = self._open.pop(fd, None)
        if made is None or self._world is None:
            return
        counts = self._world.open_now.by_app
        counts[self._app] -= 1
        if counts[self._app] <= 0:
            del counts[self._app]
        if made.making is not None:
            made.making.cancel()
        if made.line is not None:
            made.line.close()
            self._sent_before += made.line.sent_bytes

    def ready(self, fd: int, mask: int) -> bool:
        made = self._open[fd]
        if made.making is not None:
            return False
        return made.line is None or made.line.ready(mask)

    def when_ready(self, wanted: Mapping[int, int], wait_s: float | None) -> None:
        """A guest waits in one call at a time."""
        self._wanted = dict(wanted)
        if wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)
        self._watch()

    def _line(self, fd: int) -> Line | None:
        """None while it is being made."""
        made = self._open[fd]
        if made.making is not None:
            return None
        if made.line is None:
            raise SocketError(made.errno or _NUMBERS["ENOTCONN"])
        return made.line

    # -- what happens meanwhile, on the loop ------------------------------------------------

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for fd, mask in self._wanted.items():
            made = self._open.get(fd)
            if made is None or made.line is None:
                continue  # `_make` says when that changes
            at, events = made.line.socket.fileno(), made.line.waits_for(mask)
            if events & READ:
                loop.add_reader(at, self._check)
                self._watched.append((loop.remove_reader, at))
            if events & WRITE:
                loop.add_writer(at, self._check)
                self._watched.append((loop.remove_writer, at))

    def _check(self) -> None:
        if not self._wanted:
            return
        if any(fd not in self._open or self.ready(fd, mask) for fd, mask in self._wanted.items()):
            self._wake()
            return
        # What TLS waits for may be another thing by now; and a connection may be there at last.
        self._watch_no_more()
        self._watch()

    def _wake(self) -> None:
        if self._wanted:
            self._wait_no_more()
            self._answer()

    def _wait_no_more(self) -> None:
        self._wanted = {}
        self._watch_no_more()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_no_more(self) -> None:
        for stop, at in self._watched:
            stop(at)
        self._watched.clear()

    async def _make(
        self, made: _Connection, world: World, host: str, port: int, *, tls: bool
    ) -> None:
        try:
            made.line = await self._connect(world, host, port, tls=tls)
        except OutsideError as error:
            made.errno = _NUMBERS.get(error.name, _NUMBERS["EHOSTUNREACH"])
            why = error.text.removeprefix("isopod: ") or error.name
            self._say(f"no connection to {host!r}, port {port}: {why}")
        except ssl.SSLError as error:
            made.errno = _NUMBERS["EPROTO"]
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            self._say(f"no TLS with {host!r}, port {port}: {why}")
        except TimeoutError:
            made.errno = _NUMBERS["ETIMEDOUT"]
        except Exception as error:
            # A ValueError: no name that TLS could ask for. Whatever it is, the guest waits for it.
            made.errno = _failed(error).errno
        finally:
            made.making = None
        self._check()

    async def _connect(self, world: World, host: str, port: int, *, tls: bool) -> Line:
        made = await world.outside.connect(self._app, [host], "", port)
        made.setblocking(False)
        try:
            if not tls:
                return Line(made)
            line = TlsLine(made, world.contexts.default(), host.strip("[]"))
            async with asyncio.timeout(_TLS_S):
                await line.handshake()
            return line
        except BaseException:
            made.close()
            raise


def _error(name: str) -> SocketError:
    return SocketError(_NUMBERS[name])


def _failed(error: Exception) -> SocketError:
    if isinstance(error, ssl.SSLEOFError):  # it went without a farewell
        return _error("ECONNRESET")
    if isinstance(error, ssl.SSLError):
        return _error("EPROTO")
    name = errno.errorcode.get(getattr(error, "errno", None) or 0, "EIO")
    if isinstance(error, ValueError):
        name = "EINVAL"
    if name == "EOPNOTSUPP":
        name = "ENOTSUP"
    return SocketError(_NUMBERS.get(name, _NUMBERS["EIO"]))
