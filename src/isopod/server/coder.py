"""Compiles apps' own modules for a worker, and shows it their machine code.

A process beside the worker, forked before that runs anything (`coder_process`). It runs no guest's
code: it compiles what it is asked for from the module itself, never takes machine code from
anybody, and keeps it in a folder that only processes like this one write. So what a worker executes
was made by the compiler in a process that nothing of a tenant's had run in: not by a builder, which
runs guests, nor by a worker.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from isopod.engine.code_window import CodeWindow, Text, text_of
from isopod.engine.config import Engine
from isopod.engine.kept_modules import KeptModules
from isopod.engine.machine_code import Loaded
from isopod.errors import EngineError, IsopodError, ModuleInvalid, NodeBusy
from isopod.sandbox import seccomp
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.server.beside import start_beside
from isopod.server.code_folder import Bounds, CodeFolder
from isopod.server.coder_process import MAX_QUESTION_BYTES, serve
from isopod.server.coding import Work
from isopod.settings import NodeSettings

# Address space for the code of all modules that a worker has linked: a program in C has 100 KiB,
# one in Go 5 MiB. And of one tenant's, where others are served too.
_WINDOW_BYTES, _WINDOW_SHARE = 1 << 30, 256 << 20
_KEPT_BYTES, _KEPT_SHARE = 4 << 30, 1 << 30  # on disk
_MAX_ANSWER_BYTES = 64 << 10
_TRIES = 3


class Coder:
    """The worker's side: see `isopod.engine.machine_code.MachineCode`."""

    def __init__(
        self, line: socket.socket, window: CodeWindow, *, trees: Path, folder: Path
    ) -> None:
        self._line = line
        self._window = window
        self._trees, self._folder = trees, folder
        self._engine: Engine | None = None
        self.kept = KeptModules()

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

    async def make(self, file: Path, owner: str) -> None:
        await self._found(file, owner)

    async def load(self, file: Path, owner: str) -> Loaded:
        """`file` is one of a tree, and is not read: its tree's blob is."""
        for _ in range(_TRIES):
            found = await self._found(file, owner)
            with suppress(FileNotFoundError):
                if found:
                    return await self._show(self._folder / found, owner)
        # Each time it made room for others.
        raise NodeBusy("an app's machine code was removed at once", hint="try again in a moment")

    async def _found(self, file: Path, owner: str) -> str:
        tree, name = self._place_in_tree(file)
        about = {"tree": tree, "name": name, "owner": owner}
        found = await self._ask({"what": "find", **about})
        return found or await self._ask({"what": "compile", **about})

    def _place_in_tree(self, file: Path) -> tuple[str, str]:
        """`trees/DIGEST/tree/NAME`."""
        try:
            digest, tree, *names = file.relative_to(self._trees).parts
        except ValueError:
            digest, tree, names = "", "", []
        if tree != "tree" or not names or ".." in names:
            raise ModuleInvalid(f"the module {file.name!r} is in no tree")
        return digest, "/".join(names)

    async def _show(self, compiled: Path, owner: str) -> Loaded:
        text = _text_there(compiled)
        at = self._window.place(text.size, owner)
        try:
            if not await self._ask(
                {"what": "show", "file": compiled.name, "at": at, "owner": owner}
            ):
                raise FileNotFoundError(compiled)
            return await asyncio.to_thread(self._adopted, compiled, text, at)
        except asyncio.CancelledError:
            raise  # it may be written to still: that range is nobody's any more
        except BaseException:
            self._window.free(at)
            raise

    def _adopted(self, compiled: Path, text: Text, at: int) -> Loaded:
        module = self._window.adopt(self.engine, compiled, text, at)
        return Loaded(module, lambda: self._window.free(at), text.size)

    async def _ask(self, question: dict[str, Any]) -> str:
        """Each has a line of its own for the answer: what is shown does not wait for what is
        compiled."""
        data = json.dumps(question).encode()
        if len(data) > MAX_QUESTION_BYTES:
            raise EngineError("a module's name is too long")
        ours, its = socket.socketpair()
        with ours:
            with its:
                try:
                    socket.send_fds(self._line, [data], [its.fileno()], socket.MSG_DONTWAIT)
                except OSError as error:
                    raise NodeBusy(
                        "the process that compiles modules takes no more of them",
                        hint="try again in a moment",
                    ) from error
            answer = await _line_of(ours)
        if not answer:
            raise NodeBusy(
                "the process that compiles modules gave no answer in time",
                hint="other modules are before it: try again in a while",
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


def _text_there(compiled: Path) -> Text:
    compiled.stat()  # FileNotFoundError
    return text_of(compiled)


async def _line_of(answers: socket.socket) -> bytes:
    """b"" if there is none."""
    answers.setblocking(False)
    loop, said = asyncio.get_running_loop(), b""
    with suppress(ConnectionError):
        while not said.endswith(b"\n") and len(said) < _MAX_ANSWER_BYTES:
            if not (piece := await loop.sock_recv(answers, _MAX_ANSWER_BYTES)):
                break
            said += piece
    return said if said.endswith(b"\n") else b""


def start_coder(
    settings: NodeSettings,
    features: Features,
    *,
    trees: Path,
    folder: Path,
    alone: bool,
    others: Iterable[int],
) -> Coder:
    """Fork it, as `start_maker` does. `trees`: where the worker has its modules; `folder`: what was
    compiled. `alone`: one tenant has all of this worker."""
    window = CodeWindow(_WINDOW_BYTES, share=_WINDOW_BYTES if alone else _WINDOW_SHARE)
    work = Work(
        blobs=settings.blobs_dir,
        code=CodeFolder(folder, _KEPT_BYTES, _KEPT_BYTES if alone else _KEPT_SHARE),
        writer=window.writer,
        bounds=Bounds(
            seconds=max(1, int(settings.build_timeout_s)),
            memory_bytes=settings.build_memory_mib << 20,
        ),
        features=features,
    )

    def run(line: socket.socket) -> None:
        shut_in(Folders(read=(settings.blobs_dir,), change=(folder,)), features=features)
        if features.seccomp and features.libseccomp:
            seccomp.forbid_always(seccomp.library())
        serve(line, work)

    coder = Coder(start_beside(run, features, others), window, trees=trees, folder=folder)
    window.give_up_writing()
    return coder
