"""The process beside a worker that has modules compiled: it waits for questions and for the ends of
those that are being answered, and for nothing else. It reads no module itself.

What is compiled waits in one line, what is only looked for or shown in another, so that an app
whose machine code is there starts however much is being compiled. In both, tenants take turns.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from isopod.errors import EngineError, IsopodError, NodeBusy
from isopod.server.apart import end_with_parent, keep_only
from isopod.server.coding import Work, answer
from isopod.server.fair_places import FairPlaces

MAX_QUESTION_BYTES = 16 << 10
_COMPILED_AT_ONCE, _SHORT_AT_ONCE = 4, 4


@dataclass(frozen=True, slots=True)
class _Job:
    question: bytes
    reply: socket.socket


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    owner: str
    places: FairPlaces[_Job]


def serve(line: socket.socket, work: Work) -> None:
    """Until the worker has ended."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        desk = _Desk(line, work, selector)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    desk.ended(key.fd, key.data)
                elif not desk.take_one():
                    return
            desk.start()


class _Desk:
    def __init__(self, line: socket.socket, work: Work, selector: selectors.BaseSelector) -> None:
        self._line, self._work, self._selector = line, work, selector
        self._compiling: FairPlaces[_Job] = FairPlaces(_COMPILED_AT_ONCE)
        self._short: FairPlaces[_Job] = FairPlaces(_SHORT_AT_ONCE)

    def take_one(self) -> bool:
        """False: there will be no more."""
        data, descriptors, _, _ = socket.recv_fds(self._line, MAX_QUESTION_BYTES, 1)
        if not data:
            return False
        replies = [socket.socket(fileno=fd) for fd in descriptors]
        if not replies:
            return True
        try:
            question = json.loads(data)
            owner, what = str(question["owner"]), question["what"]
        except (ValueError, KeyError, TypeError, RecursionError):
            _refuse(replies[0], EngineError("that is no question"))
            return True
        places = self._compiling if what == "compile" else self._short
        if not places.add(owner, _Job(data, replies[0])):
            _refuse(
                replies[0],
                NodeBusy("too many modules wait to be compiled", hint="try again in a few minutes"),
            )
        return True

    def ended(self, done: int, child: _Child) -> None:
        self._selector.unregister(done)
        os.close(done)
        os.waitpid(child.pid, 0)
        child.places.done(child.owner)

    def start(self) -> None:
        for places in (self._short, self._compiling):
            while (taken := places.take()) is not None:
                owner, job = taken
                try:
                    if _is_gone(job.reply):  # nobody waits for it any more
                        places.done(owner)
                    else:
                        self._start_one(owner, job, places)
                except OSError:  # no process, no file: not for now
                    places.done(owner)
                    _refuse(job.reply, NodeBusy("the node has no process left for that"))
                job.reply.close()

    def _start_one(self, owner: str, job: _Job, places: FairPlaces[_Job]) -> None:
        # It is the only one that has the other end: that is closed when it has ended, however.
        done, its = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(done)
            os.close(its)
            raise
        if not pid:
            keep_only((its, job.reply.fileno(), self._work.writer))
            _answer_in_child(job, self._work, parent)
        os.close(its)
        self._selector.register(done, selectors.EVENT_READ, _Child(pid, owner, places))


def _answer_in_child(job: _Job, work: Work, parent: int) -> NoReturn:
    status = 1
    try:
        end_with_parent(parent)
        job.reply.sendall(json.dumps(answer(job.question, work)).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _refuse(reply: socket.socket, error: IsopodError) -> None:
    with reply, suppress(OSError):
        reply.setblocking(False)
        reply.sendall(json.dumps({"error": error.to_wire()}).encode() + b"\n")


def _is_gone(reply: socket.socket) -> bool:
    try:
        return reply.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
