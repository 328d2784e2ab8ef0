"""Add functions of ours to a module that was built without them.

A runtime's module exports what its makers thought of: often many small calls, each of which costs
the host microseconds. A few functions inside the module make one call of ten. They are written in
WebAssembly text against the module's exports, compiled with every function of the module imported
at its own number, and appended with all numbers as they are: nothing of the module's own code is
touched, and it imports nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import wasmtime

from isopod.errors import RuntimePrepareFailed

_HEAD = b"\0asm\x01\0\0\0"
_TYPE, _IMPORT, _FUNCTION, _EXPORT, _CODE = 1, 2, 3, 7, 10
_FUNCTION_KIND = 0
_FUNCTION_TYPE = 0x60


@dataclass(slots=True)
class _Section:
    kind: int
    body: bytes


def graft(module: bytes, text: str) -> bytes:
    """`module` with the functions of `text`: WebAssembly text without `(module)`, which may call
    the module's exported functions by `$name`, and uses its memory. Its exports are added to the
    module's. Raises RuntimePrepareFailed."""
    try:
        sections = list(_sections(module))
        addition = list(_sections(bytes(wasmtime.wat2wasm(_with_imports(sections, text)))))
        return _merge(sections, addition)
    except (wasmtime.WasmtimeError, IndexError, StopIteration, ValueError) as error:
        raise RuntimePrepareFailed(f"a module cannot be extended: {error}") from error


def _with_imports(sections: list[_Section], text: str) -> str:
    types = _types(_body(sections, _TYPE))
    imported = [one for one in _imports(_body(sections, _IMPORT)) if one is not None]
    defined = list(_numbers(_body(sections, _FUNCTION)))
    exported = {
        index: name
        for name, kind, index in _exports(_body(sections, _EXPORT))
        if kind == _FUNCTION_KIND
    }
    lines = ['(import "m" "memory" (memory 0))']
    for index, which in enumerate([*imported, *defined]):
        if index in exported and (signature := types[which]) is not None:
            lines.append(f'(import "m" "f" (func ${exported[index]} {signature}))')
        else:
            lines.append('(import "m" "f" (func))')
    return f"(module {' '.join(lines)} {text})"


def _merge(sections: list[_Section], addition: list[_Section]) -> bytes:
    own_types = _body(sections, _TYPE)
    more_types = _body(addition, _TYPE)
    first_type, at = _leb(own_types, 0)
    count, at_more = _leb(more_types, 0)
    merged: dict[int, bytes] = {
        _TYPE: _encode(first_type + count) + own_types[at:] + more_types[at_more:]
    }
    numbers = [first_type + number for number in _numbers(_body(addition, _FUNCTION))]
    for kind, encoded in (
        (_FUNCTION, b"".join(_encode(number) for number in numbers)),
        (_CODE, _items(addition, _CODE)),
        (_EXPORT, _items(addition, _EXPORT)),
    ):
        own = _body(sections, kind)
        had, at = _leb(own, 0)
        more, _ = _leb(_body(addition, kind), 0)
        merged[kind] = _encode(had + more) + own[at:] + encoded
    out = bytearray(_HEAD)
    for section in sections:
        body = merged.get(section.kind, section.body)
        out += bytes([section.kind]) + _encode(len(body)) + body
    return bytes(out)


def _items(sections: list[_Section], kind: int) -> bytes:
    """A section without its count."""
    body = _body(sections, kind)
    return body[_leb(body, 0)[1] :]


def _sections(module: bytes) -> Iterator[_Section]:
    if module[:8] != _HEAD:
        raise ValueError("it is no core module")
    at = 8
    while at < len(module):
        kind = module[at]
        size, at = _leb(module, at + 1)
        if at + size > len(module):
            raise ValueError("it is not whole")
        yield _Section(kind, module[at : at + size])
        at += size


def _body(sections: list[_Section], kind: int) -> bytes:
    return next((one.body for one in sections if one.kind == kind), b"\0")


def _types(body: bytes) -> list[str | None]:
    """Signatures as text; None for what is not a function of plain numbers."""
    names = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}
    count, at = _leb(body, 0)
    found: list[str | None] = []
    for _ in range(count):
        if body[at] != _FUNCTION_TYPE:
            raise ValueError("its types are not functions alone")
        at += 1
        parts = []
        for word in ("param", "result"):
            size, at = _leb(body, at)
            kinds = body[at : at + size]
            at += size
            parts.append((word, [names.get(kind) for kind in kinds]))
        plain = all(None not in kinds for _, kinds in parts)
        text = " ".join(
            f"({word} {' '.join(kind for kind in kinds if kind)})" for word, kinds in parts if kinds
        )
        found.append(text if plain else None)
    return found


def _imports(body: bytes) -> Iterator[int | None]:
    """The type of each imported function; None for what is no function."""
    count, at = _leb(body, 0)
    for _ in range(count):
        for _name in range(2):
            size, at = _leb(body, at)
            at += size
        kind = body[at]
        if kind != _FUNCTION_KIND:
            raise ValueError("it imports more than functions")
        number, at = _leb(body, at + 1)
        yield number


def _exports(body: bytes) -> Iterator[tuple[str, int, int]]:
    count, at = _leb(body, 0)
    for _ in range(count):
        size, at = _leb(body, at)
        name = body[at : at + size].decode()
        at += size
        kind = body[at]
        index, at = _leb(body, at + 1)
        yield name, kind, index


def _numbers(body: bytes) -> Iterator[int]:
    count, at = _leb(body, 0)
    for _ in range(count):
        number, at = _leb(body, at)
        yield number


def _leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _encode(value: int) -> bytes:
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)
