"""Where the machine code of an app's own module comes from.

Two ways, which a runtime need not tell apart: a builder compiles in its own process, which is
bounded and gone afterwards; a worker, which may not compile, has a process beside it do so.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from ctypes import byref, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import wasmtime

from isopod.engine.config import Engine
from isopod.engine.ffi import raw
from isopod.engine.kept_modules import KeptModules
from isopod.engine.sections import FUNCTION_TYPE, TAG, TYPE, VALUES, Section, body_of, leb, split
from isopod.errors import ModuleInvalid

# As `engine.compile` has it for runtimes' modules, and less: this one is each tenant's own.
MAX_MODULE_BYTES = 64 << 20
# What is made of one: a tenth of that, as a rule, to four times as much.
MAX_COMPILED_BYTES = 256 << 20
_FUNCREF, _EXTERNREF, _EXNREF = 0x70, 0x6F, 0x69
_PLAIN = frozenset({*VALUES, _FUNCREF, _EXTERNREF, _EXNREF})
# How a module begins, and what a component has in place of a core module's version (the "layer" of
# WebAssembly/component-model, Binary.md).
_MAGIC, _CORE, _COMPONENT = b"\0asm", b"\x01\0\0\0", b"\x0d\0\x01\0"


@dataclass(frozen=True, slots=True)
class Loaded:
    """`release` when nothing runs in it any more. `size`: what its machine code takes of the room
    that there is for it."""

    module: wasmtime.Module
    release: Callable[[], None]
    size: int = 0


class MachineCode(Protocol):
    @property
    def engine(self) -> Engine: ...

    @property
    def kept(self) -> KeptModules:
        """Those that are linked, of all runtimes."""

    async def make(self, file: Path, owner: str) -> None:
        """What `load` would wait for. Raises as that does, but for room in this process."""

    async def load(self, file: Path, owner: str) -> Loaded:
        """The module in `file`, of tenant `owner`. Takes as long as compiling takes. Raises
        ModuleInvalid, ModuleTooCostly, what keeps it from being compiled; MachineCodeFull and
        WindowFull when there is no room until others of `kept` are let go."""


class CompiledHere:
    """In a process that may make machine code, and whose time and memory are bounded. What it
    compiled last it knows: a build compiles a module to look at it, and then runs it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kept = KeptModules()
        self._last: tuple[bytes, wasmtime.Module] | None = None

    async def make(self, file: Path, owner: str) -> None:  # noqa: ARG002
        await asyncio.to_thread(self.compiled, file)

    async def load(self, file: Path, owner: str) -> Loaded:  # noqa: ARG002  it ends with this process
        return Loaded(await asyncio.to_thread(self.compiled, file), lambda: None)

    def compiled(self, file: Path) -> wasmtime.Module:
        """Raises ModuleInvalid."""
        data = read_module(file)
        digest = hashlib.sha256(data).digest()
        if self._last is None or self._last[0] != digest:
            self._last = digest, compile_module(self.engine, data)
        return self._last[1]


def read_module(file: Path) -> bytes:
    """Raises ModuleInvalid for what is no core module: a message for whoever deploys it."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_MODULE_BYTES + 1)
    except OSError as error:
        raise ModuleInvalid(
            f"the module {file.name!r} cannot be read: {(error.strerror or '').lower()}"
        ) from error
    check_head(data, file.name)
    return data


def check_head(data: bytes, name: str) -> None:
    """Raises ModuleInvalid for what is no core module, or too large a one."""
    if len(data) > MAX_MODULE_BYTES:
        raise ModuleInvalid(
            f"the module {name!r} is larger than {MAX_MODULE_BYTES >> 20} MiB",
            hint="leave debugging information out of it (-s, or wasm-strip)",
        )
    if data[:4] != _MAGIC:
        raise ModuleInvalid(f"{name!r} is no WebAssembly module")
    if data[4:8] == _COMPONENT:
        raise ModuleInvalid(
            f"{name!r} is a component (WASI preview 2), and only modules of preview 1 are run",
            hint="build for wasm32-wasip1 (wasm32-wasi), or take the core module from before"
            " `wasm-tools component new`",
        )
    if data[4:8] != _CORE:
        raise ModuleInvalid(f"{name!r} is of a version of WebAssembly that is not known")


def compile_module(engine: Engine, data: bytes) -> wasmtime.Module:
    """Raises ModuleInvalid. What is refused for what it has is refused before it is compiled."""
    try:
        wasmtime.Module.validate(engine, data)
    except wasmtime.WasmtimeError as error:
        raise _explained(str(error)) from error
    try:
        own = split(data)
    except ValueError as error:
        raise ModuleInvalid(f"the module cannot be read: {error}") from error
    if not _has_plain_types(own):
        raise ModuleInvalid(
            "the module has types of garbage-collected languages: structs, arrays, references",
            hint="languages that bring their own memory management run here: C, Rust, Go, Zig...",
        )
    if any(section.kind == TAG for section in own):
        raise ModuleInvalid(
            "the module throws exceptions (it has tags)",
            hint="build it without them: the engine keeps each in memory that nobody meters",
        )
    try:
        module = wasmtime.Module(engine, data)
    except wasmtime.WasmtimeError as error:
        raise _explained(str(error)) from error
    start, end = c_void_p(), c_void_p()
    raw.wasmtime_module_image_range(module.ptr(), byref(start), byref(end))
    size = int(end.value or 0) - int(start.value or 0)
    if size > MAX_COMPILED_BYTES:
        raise ModuleInvalid(
            f"the module's machine code takes {size >> 20} MiB, of at most"
            f" {MAX_COMPILED_BYTES >> 20}",
            hint="leave out what the app does not need, or make several apps of it",
        )
    return module


def _has_plain_types(own: list[Section]) -> bool:
    """The engine would keep the others in memory beside the linear one, which nobody meters."""
    body = body_of(own, TYPE)
    count, at = leb(body, 0)
    for _ in range(count):
        if body[at] != FUNCTION_TYPE:
            return False
        at += 1
        for _parameters_and_results in range(2):
            size, at = leb(body, at)
            if not _PLAIN.issuperset(body[at : at + size]):
                return False
            at += size
    return True


def _explained(said: str) -> ModuleInvalid:
    """What the engine says of a module that it does not compile."""
    reasons = [line.strip() for line in said.splitlines() if line.strip()]
    reason = reasons[-1] if reasons else "no reason given"
    hint = ""
    if "threads" in said or "shared" in said or "atomic" in said:
        reason = "it needs threads or shared memory, which there are none of"
        hint = "build it without threads (no -pthread, no wasm32-wasip1-threads)"
    elif "memory64" in said:
        hint = "build it for 32-bit memory (wasm32)"
    elif "multi-memory" in said or "multiple memories" in said:
        hint = "a module has one memory"
    return ModuleInvalid(f"the module cannot be compiled: {reason[:500]}", hint=hint)
