"""Compiles apps' own modules for a worker, and shows it their machine code.

A process beside the worker, forked before that runs anything. It runs no guest's code: it compiles
what it is asked for from the module itself, never takes machine code from anybody, and keeps it in
a folder that only processes like this one write. So what a worker executes was made by the
compiler in a process that nothing of a tenant's had run in: not by a builder, which runs guests,
nor by a worker. The compiler reads hostile modules, though: each is compiled in a process of its
own, with bounds, which sees the modules and that folder and nothing else.

What was compiled for one tenant is not taken for another: how long a start takes would tell.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from isopod.engine.code_window import CodeWindow, fill, text_of
from isopod.engine.config import Engine, EngineSettings, fingerprint, make_engine
from isopod.engine.machine_code import Loaded, compile_module, read_module
from isopod.errors import EngineError, IsopodError, ModuleInvalid, disk_full_is_clear
from isopod.sandbox import kernel, seccomp
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.server.beside import start_beside
from isopod.settings import NodeSettings

# Address space for the code of all modules that a worker has linked: a program in C has 100 KiB,
# one in Go 5 MiB.
_WINDOW_BYTES = 1 << 30
_KEPT_BYTES = 4 << 30  # on disk; who was not used for longest goes
_ABANDONED_S = 60.0  # it is written in one piece
_MOST_AT_ONCE = 4
_MAX_QUESTION = 16 << 10
_MORE_DATA = 1 << 30  # mapped, and never all touched
_TRIES = 3
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of one compilation; those of a build, in which the same module was compiled once."""

    seconds: int
    memory_bytes: int


class Coder:
    """The worker's side: see `isopod.engine.machine_code.MachineCode`."""

    def __init__(self, line: socket.socket, window: CodeWindow) -> None:
        self._line = line
        self._window = window
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def fileno(self) -> int:
        return self._line.fileno()

    def use(self, engine: Engine) -> None:
        """The worker's, which is made after this."""
        self._engine = engine

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("modules are loaded before there is an engine")
        return self._engine

    def load(self, file: Path, owner: str) -> Loaded:
        for left in reversed(range(_TRIES)):
            compiled = Path(self._ask({"what": "compile", "file": str(file), "owner": owner}))
            try:
                return self._show(compiled)
            except FileNotFoundError:
                if not left:  # each time it made room for others
                    raise EngineError("an app's machine code was removed at once") from None
        raise AssertionError

    def _show(self, compiled: Path) -> Loaded:
        compiled.stat()
        text = text_of(compiled)
        at = self._window.place(text.size)
        try:
            self._ask({"what": "show", "file": compiled.name, "at": at})
            module = self._window.adopt(self.engine, compiled, text, at)
        except BaseException:
            self._window.free(at)
            raise
        return Loaded(module, lambda: self._window.free(at))

    def _ask(self, question: dict[str, object]) -> str:
        """Each has a line of its own for the answer: what is shown does not wait for what is
        compiled."""
        data = json.dumps(question).encode()
        if len(data) > _MAX_QUESTION:
            raise EngineError("a module's name is too long")
        ours, its = socket.socketpair()
        with ours:
            with its, self._lock, suppress(ConnectionError):
                socket.send_fds(self._line, [data], [its.fileno()])
            with ours.makefile("rb") as answers:
                answer = answers.readline()
        if not answer:
            raise ModuleInvalid(
                "the module takes too long, or too much memory, to be compiled",
                hint="the node's operator can raise what a build may take",
            )
        body = json.loads(answer)
        if "error" in body:
            raise IsopodError.from_wire(body["error"])
        return str(body["file"])

    def is_gone(self) -> bool:
        try:
            return self._line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False


def start_coder(
    settings: NodeSettings,
    features: Features,
    *,
    trees: Path,
    folder: Path,
    others: Iterable[int],
) -> Coder:
    """Fork it, as `start_maker` does. `trees`: where modules are; `folder`: what it compiled."""
    window = CodeWindow(_WINDOW_BYTES)
    bounds = _Bounds(
        seconds=max(1, int(settings.build_timeout_s)),
        memory_bytes=settings.build_memory_mib << 20,
    )

    def serve(line: socket.socket) -> None:
        shut_in(Folders(read=(trees,), change=(folder,)), features=features)
        if library := _filters(features):
            seccomp.forbid_always(library)
        _serve(line, _Work(folder, window.writer, bounds, features))

    coder = Coder(start_beside(serve, features, others), window)
    window.give_up_writing()
    return coder


def _filters(features: Features) -> object | None:
    return seccomp.library() if features.seccomp and features.libseccomp else None


@dataclass(frozen=True, slots=True)
class _Work:
    folder: Path
    writer: int
    bounds: _Bounds
    features: Features


def _serve(line: socket.socket, work: _Work) -> None:
    children: set[int] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(line, _MAX_QUESTION, 1)
        if not data:
            return
        while len(children) >= _MOST_AT_ONCE:
            children.discard(os.waitpid(-1, 0)[0])
        for fd in descriptors:
            if pid := os.fork():
                children.add(pid)
            else:
                line.close()
                _answer_in_child(socket.socket(fileno=fd), data, work)
            os.close(fd)
        with suppress(ChildProcessError):
            while (done := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                children.discard(done)


def _answer_in_child(reply: socket.socket, data: bytes, work: _Work) -> NoReturn:
    status = 1
    try:
        with suppress(OSError):
            kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _bound(work)
        reply.sendall(json.dumps(_answer(data, work)).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _bound(work: _Work) -> None:
    """Its own end, whatever the compiler does: the kernel ends it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(work.bounds.seconds)
    cpu_s = work.bounds.seconds * max(1, len(os.sched_getaffinity(0)))
    for which, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, work.bounds.memory_bytes + _MORE_DATA),
    ):
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    with suppress(OSError):
        os.nice(5)  # who serves goes first
    if library := _filters(work.features):
        # The engine makes what it has compiled executable before it can be taken out of it.
        seccomp.guard_guests(library, machine_code=True)


def _answer(data: bytes, work: _Work) -> dict[str, object]:
    try:
        question = json.loads(data)
        with disk_full_is_clear(str(work.folder)):
            if question["what"] == "compile":
                made = _compiled(Path(question["file"]), str(question["owner"]), work.folder)
                return {"file": str(made)}
            compiled = work.folder / Path(question["file"]).name
            fill(work.writer, compiled, text_of(compiled), int(question["at"]))
            return {"file": str(compiled)}
    except IsopodError as bad:
        return {"error": bad.to_wire()}
    except OSError as bad:
        return {"error": EngineError(f"machine code: {(bad.strerror or '').lower()}").to_wire()}
    except (ValueError, KeyError, TypeError, MemoryError, RecursionError):
        return {"error": EngineError("no machine code can be made of that").to_wire()}


def _compiled(file: Path, owner: str, folder: Path) -> Path:
    """`KEY.SHA256.cwasm`: of what it was made, and of what is in it, so that a damaged one is seen
    and made again. Two that want the same compile it once."""
    data = read_module(file)
    settings = EngineSettings()
    parts = (owner, hashlib.sha256(data).hexdigest(), fingerprint(settings))
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    with (folder / f".lock-{key[:2]}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for found in folder.glob(f"{key}.*.cwasm"):
            with found.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            if found.name == f"{key}.{digest}.cwasm":
                os.utime(found)
                return found
            found.unlink(missing_ok=True)
        compiled = compile_module(make_engine(settings), data).serialize()
        target = folder / f"{key}.{hashlib.sha256(compiled).hexdigest()}.cwasm"
        _make_room(folder, len(compiled))
        temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(compiled)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def _make_room(folder: Path, need: int) -> None:
    """A worker that has one mapped keeps it: files are removed, never changed."""
    entries = []
    for path in folder.glob(".tmp-*"):  # of those that were killed
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
    for path in folder.glob("*.cwasm"):
        with suppress(OSError):
            there = path.stat()
            entries.append((there.st_mtime, there.st_size, path))
    excess = sum(size for _, size, _ in entries) + need - _KEPT_BYTES
    for _, size, path in sorted(entries):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
