"""Listening sockets, bound once by the supervisor and inherited by number.

A worker that dies loses only its own connections: the socket, and what waits in its backlog,
stays. Bound without SO_REUSEPORT, so that a port somebody else listens on is found out.
"""

from __future__ import annotations

import errno
import socket
import time

from isopod.errors import PortInUse, UsageError

BACKLOG = 4096  # the kernel bounds it by net.core.somaxconn
_RETRY_S = 0.05


def bind_listener(host: str, port: int, *, option: str, patience_s: float = 0.0) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    PortInUse names the address. `patience_s`: how long to wait for a port whose last holder is
    just ending. `option` is what chooses the port on the command line.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _bind(host, port)
        except OSError as bad:
            if bad.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(_RETRY_S)
                continue
            raise _ours(bad, host, port, option) from bad


def _bind(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: else a streamed piece waits 40 ms for the acknowledgement of the
        # one before it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _ours(bad: OSError, host: str, port: int, option: str) -> Exception:
    where = f"{host}:{port}"
    if bad.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} is in use on {host!r}",
            hint=f"stop what listens there, or choose another with {option} (0 picks a free one)",
            details={"host": host, "port": port},
        )
    if bad.errno == errno.EACCES:
        return UsageError(
            f"may not listen on {where!r}: permission denied",
            hint=f"choose a port above 1023 with {option}",
        )
    return UsageError(
        f"cannot listen on {where!r}: {bad.strerror or bad}",
        hint="the host must be an address of this machine",
    )
