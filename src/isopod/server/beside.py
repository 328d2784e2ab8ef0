"""Small processes beside a worker, forked from it before it runs anything: each does one thing that
the worker itself must not be able to do, asked over one pair of sockets, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from isopod.errors import IsopodError
from isopod.sandbox import kernel, seccomp
from isopod.sandbox.features import Features

_MAX_QUESTION_BYTES = 1 << 20


class Beside:
    """The worker's side of one. Safe for several threads; it is asked one thing at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._answers = line.makefile("rb")
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._line.fileno()

    def is_gone(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # it is being asked, and will be missed
        try:
            return self._line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        finally:
            self._lock.release()

    def _ask(self, question: Any, *, gone: IsopodError) -> dict[str, Any]:
        """Its answer. Raises the error that it answers with, or `gone` when it has ended."""
        answer = b""
        with self._lock, suppress(ConnectionError):
            self._line.sendall(json.dumps(question).encode() + b"\n")
            answer = self._answers.readline()
        if not answer:
            raise gone
        body: dict[str, Any] = json.loads(answer)
        if "error" in body:
            raise IsopodError.from_wire(body["error"])
        return body


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


def answer_all(line: socket.socket, answer: Callable[[bytes], dict[str, Any]]) -> None:
    """Its own side: a line of JSON for each line that is asked, until the worker has ended.
    `answer` is handed what a worker that was taken over may write; at most 1 MiB of it."""
    with line.makefile("rwb") as file:
        while question := file.readline(_MAX_QUESTION_BYTES):
            file.write(json.dumps(answer(question)).encode() + b"\n")
            file.flush()


def _run(serve: Callable[[socket.socket], None], line: socket.socket, parent: int) -> NoReturn:
    status = 1
    try:
        kernel.end_with_parent()
        if os.getppid() == parent:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its worker
            serve(line)
        status = 0
    finally:
        os._exit(status)
