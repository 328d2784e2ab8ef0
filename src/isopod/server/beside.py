"""Small processes beside a worker, forked from it before it runs anything: each does one thing that
the worker itself must not be able to do, asked over one pair of sockets, and ends with it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn

from isopod.sandbox import seccomp
from isopod.sandbox.features import Features

_PR_SET_PDEATHSIG = 1


def start_beside(
    serve: Callable[[socket.socket], None], features: Features, others: Iterable[int]
) -> socket.socket:
    """Fork a process that runs `serve` with its end, which is to shut itself in; ours is returned.
    Needs a process of one thread that is not shut in yet. `others`: descriptors that it shall not
    keep."""
    if features.seccomp and features.libseccomp:
        seccomp.library()  # looked for once, for all
    ours, its = socket.socketpair()
    parent = os.getpid()
    if not os.fork():
        ours.close()
        for fd in others:
            os.close(fd)
        _run(serve, its, parent)
    its.close()
    return ours


def _run(serve: Callable[[socket.socket], None], line: socket.socket, parent: int) -> NoReturn:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its worker
            serve(line)
        status = 0
    finally:
        os._exit(status)
