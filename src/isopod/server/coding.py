"""What a coder is asked, answered in a process that ends with the answer.

    find      is there machine code for that module, or a reason why there is none?
    compile   make some
    show      write it where the worker can run it

The module is read from its tree's blob, whose digest control recorded: what a worker, or a builder
that was taken over, does to the extracted copy has no part in it. The two steps that look at what
a tenant wrote, unpacking and compiling, are processes of their own, without any rights (`apart`).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isopod.blobs.member import open_blob, read_member
from isopod.blobs.store import BlobStore
from isopod.engine.code_window import fill, text_of
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.machine_code import (
    MAX_COMPILED_BYTES,
    MAX_MODULE_BYTES,
    check_head,
    compile_module,
)
from isopod.errors import (
    EngineError,
    IsopodError,
    ModuleInvalid,
    ModuleTooCostly,
    disk_full_is_clear,
)
from isopod.model.ids import Digest
from isopod.sandbox.features import Features
from isopod.server.apart import Ended, Limits, run_apart
from isopod.server.code_folder import Bounds, CodeFolder

_READ = Limits(seconds=120, memory_bytes=512 << 20, file_bytes=MAX_MODULE_BYTES + 1)
_BESIDE_S = 300  # a question takes so much at most, beside compiling


@dataclass(frozen=True, slots=True)
class Work:
    blobs: Path
    code: CodeFolder
    writer: int  # into the worker's window
    bounds: Bounds
    features: Features


def answer(data: bytes, work: Work) -> dict[str, Any]:
    """To what a worker asks, which may have been taken over."""
    # Two may want the same: one waits for the other, and then finds it.
    signal.alarm(_BESIDE_S + 2 * work.bounds.seconds)
    try:
        question = json.loads(data)
        with disk_full_is_clear(str(work.code.folder)):
            return {"file": _done(question, work)}
    except IsopodError as bad:
        return {"error": bad.to_wire()}
    except FileNotFoundError:
        return {"file": ""}  # removed, for another
    except OSError as bad:
        return {"error": EngineError(f"machine code: {(bad.strerror or '').lower()}").to_wire()}
    except (ValueError, KeyError, TypeError, MemoryError, RecursionError):
        return {"error": EngineError("no machine code can be made of that").to_wire()}


def _done(question: Mapping[str, Any], work: Work) -> str:
    if question["what"] == "show":
        compiled = work.code.folder / Path(question["file"]).name
        fill(work.writer, compiled, text_of(compiled), int(question["at"]))
        return compiled.name
    os.close(work.writer)
    tree, name = Digest.parse(question["tree"]), str(question["name"])
    module = _module(tree, name, work)
    key = work.code.key(str(question["owner"]), module)
    found = _found(key, work)
    if found is None and question["what"] == "compile":
        with work.code.place(key), work.code.locked(key):
            found = _found(key, work) or _compiled(module, key, work)
    return found.name if found else ""


def _found(key: str, work: Work) -> Path | None:
    found = work.code.find(key)
    if found is None and (error := work.code.failure(key, work.bounds)) is not None:
        raise error
    return found


def _module(tree: Digest, name: str, work: Work) -> bytes:
    """Raises ModuleInvalid, BlobMissing, BlobCorrupt."""
    blob, out = open_blob(BlobStore(work.blobs), tree), os.memfd_create("module")

    def unpack() -> None:
        data = read_member(blob, tree, name, most=MAX_MODULE_BYTES + 1)
        if data is None:
            raise ModuleInvalid(f"the module {name!r} is not there")
        _write(out, data)

    ended = run_apart(unpack, (blob, out), _READ, work.features)
    if ended.error is not None:
        raise ended.error
    if ended.failed:
        raise EngineError(f"the tree {tree.short!r} cannot be read")
    os.lseek(out, 0, os.SEEK_SET)
    with os.fdopen(out, "rb") as file:
        module = file.read(MAX_MODULE_BYTES + 1)
    check_head(module, name)
    return module


def _compiled(module: bytes, key: str, work: Work) -> Path:
    with work.code.temporary() as temporary:
        out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def compile_it() -> None:
            with disk_full_is_clear(str(work.code.folder)):
                _write(out, compile_module(make_engine(EngineSettings()), module).serialize())

        limits = Limits(work.bounds.seconds, work.bounds.memory_bytes, 2 * MAX_COMPILED_BYTES)
        ended = run_apart(compile_it, (out,), limits, work.features)
        os.close(out)
        if (error := _why(ended, work.bounds)) is not None:
            if isinstance(error, (ModuleInvalid, ModuleTooCostly)):
                work.code.remember(key, error, work.bounds)
            raise error
        work.code.forget_failure(key)
        return work.code.keep(key, temporary)


def _why(ended: Ended, bounds: Bounds) -> IsopodError | None:
    if not ended.failed:
        return None
    if ended.error is not None:
        return ended.error
    if ended.over_time:
        return ModuleTooCostly(f"the module takes longer than {bounds.seconds} s to be compiled")
    return ModuleTooCostly(
        f"the module takes more than {bounds.memory_bytes >> 20} MiB of memory to be compiled,"
        " or the compiler cannot deal with it"
    )


def _write(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
