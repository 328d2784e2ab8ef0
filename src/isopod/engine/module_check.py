"""What a module of an app's own must be, said when it is deployed: what it imports that nobody
provides, with what would, and what it does not export."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import wasmtime

from isopod.engine.linker import Imports
from isopod.engine.relay import WASI
from isopod.errors import EngineError, ModuleInvalid

_MOST_NAMED = 20
# Module of an import (or how it begins, up to a "_" or ":") -> what would provide it.
_PROVIDERS = (
    ("wasi_unstable", "it is built for preview 0 of WASI: build it with a compiler of these years"),
    ("wasix_", "WASIX is Wasmer's alone: build it for wasm32-wasip1"),
    ("wasi:", "these are of preview 2 of WASI: build it for wasm32-wasip1"),
    ("wasi_ephemeral_", "there are no such extensions here"),
    ("wasi_snapshot_preview1", "these are no functions of WASI preview 1: other engines add them"),
    ("wasi", "threads, of which there are none: build it without (no wasm32-wasip1-threads)"),
    ("gojs", "it is built for browsers: GOOS=wasip1 GOARCH=wasm go build"),
    ("go", "it is built for browsers: GOOS=wasip1 GOARCH=wasm go build"),
    ("__wbindgen_", "wasm-bindgen is for browsers: build it for wasm32-wasip1"),
    ("wbg", "wasm-bindgen is for browsers: build it for wasm32-wasip1"),
    ("env", "the linker left them to others: link what defines them (no --allow-undefined, "
     "no --import-memory), and not by Emscripten, which is for browsers"),
)  # fmt: skip

# An export's name -> parameters and results ("i32 i32", ""); None: it is a memory.
Exports = Mapping[str, tuple[str, str] | None]


def check_module(
    module: wasmtime.Module,
    imports: Imports,
    exports: Exports,
    *,
    optional: Exports = MappingProxyType({}),
) -> None:
    """Raises ModuleInvalid with all that is missing. `optional`: exports that are called where
    they are there."""
    there = {one.name for one in module.exports}
    _check_exports(module, {**exports, **{n: k for n, k in optional.items() if n in there}})
    missing: list[tuple[str, str]] = []
    wrong: list[str] = []
    for one in module.imports:
        name = one.name or ""
        known = imports.provided(one.module, name)
        if known is None:
            missing.append((one.module, name))
        elif not isinstance(one.type, wasmtime.FuncType) or signature(one.type) != known:
            wrong.append(f"{one.module}.{name}, which is ({known[0]}) -> ({known[1]})")
    if missing:
        raise _missing(missing)
    if wrong:
        raise ModuleInvalid(
            f"the module imports with another signature: {_listed(wrong)}",
            hint=f"{WASI} is as its specification says (witx)",
        )
    try:
        imports.link(module)
    except EngineError as error:
        raise ModuleInvalid(error.message) from error


def signature(kind: wasmtime.FuncType) -> tuple[str, str]:
    return " ".join(map(str, kind.params)), " ".join(map(str, kind.results))


def _check_exports(module: wasmtime.Module, exports: Exports) -> None:
    found = {one.name: one.type for one in module.exports}
    if not found:
        raise ModuleInvalid("the module exports nothing")
    for name, wanted in exports.items():
        kind = found.get(name)
        if kind is None:
            what = "memory" if wanted is None else "function"
            raise ModuleInvalid(f"the module exports no {what} {name!r}", details={"missing": name})
        if wanted is None:
            if not isinstance(kind, wasmtime.MemoryType):
                raise ModuleInvalid(f"the module's export {name!r} is no memory")
        elif not isinstance(kind, wasmtime.FuncType) or signature(kind) != wanted:
            raise ModuleInvalid(
                f"the module's export {name!r} has to be a function ({wanted[0]}) -> ({wanted[1]})"
            )


def _missing(missing: list[tuple[str, str]]) -> ModuleInvalid:
    names = [f"{module}.{name}" for module, name in missing]
    hints = dict.fromkeys(_provider(module) for module, _ in missing)
    return ModuleInvalid(
        f"the module imports what nobody here provides: {_listed(names)}",
        hint="; ".join(list(filter(None, hints))[:3]) or f"what there is, is {WASI}",
        details={"imports": names[:1000]},
    )


def _provider(module: str) -> str:
    for start, text in _PROVIDERS:
        if module == start or (start.endswith(("_", ":")) and module.startswith(start)):
            return f"{module[:40]}: {text}"
    return ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(name[:200] for name in names[:_MOST_NAMED]) + more
