"""WASI's own functions, called by us in a guest's name.

A function of ours that stands in for one of WASI's cannot just call the original: that looks for
the memory which its *caller* exports, and a call from the host has no caller. So a second, tiny
instance in the guest's store imports the guest's memory, exports it again, and holds one function
per original that does nothing but call it. It is made when a guest first needs it (50 us).
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref
from typing import Any

import wasmtime

from isopod.engine import ffi, traps
from isopod.engine.ffi import raw
from isopod.errors import EngineError, IsopodError

WASI = "wasi_snapshot_preview1"

# Parameters of wasi_snapshot_preview1 (witx): "i" is an i32, "I" an i64; each returns an errno.
SIGNATURES = {
    "fd_read": "iiii",
    "fd_pread": "iiiIi",
    "fd_write": "iiii",
    "fd_pwrite": "iiiIi",
    "fd_allocate": "iII",
    "fd_filestat_set_size": "iI",
    "fd_filestat_get": "ii",
    "fd_readdir": "iiiIi",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_close": "i",
    "fd_renumber": "ii",
    "path_open": "iiiiiIIii",
    "path_create_directory": "iii",
    "path_symlink": "iiiii",
    "path_link": "iiiiiii",
    "path_filestat_get": "iiiii",
    "path_rename": "iiiiii",
    "path_remove_directory": "iii",
}
_TYPES = {"i": "i32", "I": "i64"}


def function_type(signature: str, *, has_result: bool = True) -> wasmtime.FuncType:
    kinds = {"i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64, "d": wasmtime.ValType.f64}
    results = [wasmtime.ValType.i32()] if has_result else []
    return wasmtime.FuncType([kinds[letter]() for letter in signature], results)


def _text() -> str:
    imports, functions = [], []
    for name, signature in SIGNATURES.items():
        kind = f"(param {' '.join(_TYPES[letter] for letter in signature)}) (result i32)"
        gets = " ".join(f"(local.get {number})" for number in range(len(signature)))
        imports.append(f'(import "{WASI}" "{name}" (func ${name} {kind}))')
        functions.append(f'(func (export "{name}") {kind} (call ${name} {gets}))')
    memory = '(import "guest" "memory" (memory 0)) (export "memory" (memory 0))'
    return f"(module {' '.join(imports)} {memory} {' '.join(functions)})"


class RelayMaker:
    """One per linkage."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._module = wasmtime.Module(engine, _text())
        self._linker = wasmtime.Linker(engine)
        self._linker.define_wasi()
        self._linker.allow_shadowing = True  # each guest's memory in turn

    def make(self, context: Any, memory: Any) -> Relay:
        """For the guest whose store and memory these are."""
        found = ffi.Extern()
        found.kind, found.of.memory = ffi.MEMORY, memory
        error = raw.wasmtime_linker_define(
            self._linker.ptr(), context, *ffi.text("guest"), *ffi.text("memory"), byref(found)
        )
        if error:
            raise EngineError(f"cannot lend a guest's memory: {ffi.error_message(error)}")
        handle, trap, error = ffi.InstanceHandle(), ffi.null_trap(), ffi.null_error()
        future = raw.wasmtime_linker_instantiate_async(
            self._linker.ptr(),
            context,
            self._module.ptr(),
            byref(handle),
            byref(trap),
            byref(error),
        )
        _finish(future)
        if error:
            raise traps.from_error(error)
        if trap:
            raise traps.from_trap(trap)
        return Relay(context, handle)


class Relay:
    """Valid as long as its guest's store, on a slice of that guest."""

    def __init__(self, context: Any, handle: Any) -> None:
        self._context = context
        self._handle = handle
        self._known: dict[str, Any] = {}
        self._trap, self._error = ffi.null_trap(), ffi.null_error()

    def call(self, name: str, arguments: Sequence[int]) -> int:
        """The errno. Raises the guest's trap: a pointer outside its memory, for example."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._find(name)
        values, results, prepared = known
        for value, kind, number in zip(values, SIGNATURES[name], arguments, strict=True):
            if kind == "I":
                value.of.i64 = number
            else:
                value.of.i32 = number
        _finish(ffi.call_async(*prepared))
        if self._error or self._trap:
            raise self._fault()
        return int(results[0].of.i32)

    def _fault(self) -> IsopodError:
        # What is prepared points at these two, and one of them is about to be freed.
        self._known.clear()
        error, self._error = self._error, ffi.null_error()
        trap, self._trap = self._trap, ffi.null_trap()
        return traps.from_error(error) if error else traps.from_trap(trap)

    def _find(self, name: str) -> Any:
        """The call's arguments and result, and all that the engine is called with."""
        found = ffi.Extern()
        raw.wasmtime_instance_export_get(
            self._context, byref(self._handle), *ffi.text(name), byref(found)
        )
        signature = SIGNATURES[name]
        values, results = (ffi.Val * len(signature))(), (ffi.Val * 1)()
        for value, kind in zip(values, signature, strict=True):
            value.kind = ffi.I64 if kind == "I" else ffi.I32
        prepared = (
            self._context,
            byref(found.of.func),
            values,
            len(values),
            results,
            1,
            byref(self._trap),
            byref(self._error),
        )
        return list(values), results, prepared


def _finish(future: Any) -> None:
    # Not done only when the time slice ends on the way: these calls come back by themselves.
    while not ffi.poll(future):
        pass
    ffi.delete_future(future)
