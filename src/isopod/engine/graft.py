"""Add functions of ours to a module that was built without them.

A runtime's module exports what its makers thought of: often many small calls, each of which costs
the host microseconds. A few functions inside the module make one call of ten. They are written in
WebAssembly text against the module's exports, compiled with every function of the module imported
at its own number, and appended with all numbers as they are: nothing of the module's own code is
touched, and it imports nothing more.
"""

from __future__ import annotations

import wasmtime

from isopod.engine.sections import (
    CODE,
    EXPORT,
    FUNCTION,
    FUNCTION_KIND,
    IMPORT,
    TYPE,
    Section,
    body_of,
    encode,
    exports,
    extend,
    imported_functions,
    leb,
    numbers,
    signatures,
    split,
)
from isopod.errors import RuntimePrepareFailed


def graft(module: bytes, text: str) -> bytes:
    """`module` with the functions of `text`: WebAssembly text without `(module)`, which may call
    the module's exported functions by `$name`, and uses its memory. Its exports are added to the
    module's. Raises RuntimePrepareFailed."""
    try:
        own = split(module)
        return _merge(own, split(bytes(wasmtime.wat2wasm(_with_imports(own, text)))))
    except (wasmtime.WasmtimeError, IndexError, StopIteration, ValueError) as error:
        raise RuntimePrepareFailed(f"a module cannot be extended: {error}") from error


def _with_imports(own: list[Section], text: str) -> str:
    types = signatures(body_of(own, TYPE))
    imported = imported_functions(body_of(own, IMPORT))
    defined = numbers(body_of(own, FUNCTION))
    exported = {
        index: name for name, kind, index in exports(body_of(own, EXPORT)) if kind == FUNCTION_KIND
    }
    lines = ['(import "m" "memory" (memory 0))']
    for index, which in enumerate([*imported, *defined]):
        if index in exported and (signature := types[which]) is not None:
            lines.append(f'(import "m" "f" (func {_identifier(exported[index])} {signature}))')
        else:
            lines.append('(import "m" "f" (func))')
    return f"(module {' '.join(lines)} {text})"


def _identifier(name: str) -> str:
    """Any name as one, `$name` if it is plain: makers of bindings put whole signatures there."""
    escaped = "".join(
        one if one.isprintable() and one not in '"\\' else f"\\u{{{ord(one):x}}}" for one in name
    )
    return f'$"{escaped}"'


def _merge(own: list[Section], addition: list[Section]) -> bytes:
    first_type, _ = leb(body_of(own, TYPE), 0)
    types = [first_type + number for number in numbers(body_of(addition, FUNCTION))]
    return extend(
        own,
        {
            TYPE: _items(addition, TYPE),
            FUNCTION: (len(types), b"".join(map(encode, types))),
            CODE: _items(addition, CODE),
            EXPORT: _items(addition, EXPORT),
        },
    )


def _items(addition: list[Section], kind: int) -> tuple[int, bytes]:
    body = body_of(addition, kind)
    count, at = leb(body, 0)
    return count, body[at:]
