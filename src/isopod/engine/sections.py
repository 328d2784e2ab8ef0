"""A WebAssembly module as its sections, for those who read or extend one.

It reads what an app may have sent: whatever is not as the format says is a ValueError, or an
IndexError where the bytes end early. Source: WebAssembly 2.0, chapter 5, as far as its users need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TYPE, IMPORT, FUNCTION, GLOBAL, EXPORT, CODE, TAG = 1, 2, 3, 6, 7, 10, 13
FUNCTION_KIND, TABLE_KIND, MEMORY_KIND, GLOBAL_KIND = 0, 1, 2, 3
FUNCTION_TYPE = 0x60
VALUES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128"}
_HEAD = b"\0asm\x01\0\0\0"
_MAX_LEB_BITS = 64
# Compilers write a few dozen. One takes three bytes of a module, and eighty here.
_MAX_SECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Section:
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Global:
    """One that the module defines. `value`: a byte of the format's (see VALUES)."""

    index: int
    value: int
    mutable: bool


def split(module: bytes) -> list[Section]:
    return list(_sections(module))


def extend(own: list[Section], additions: Mapping[int, tuple[int, bytes]]) -> bytes:
    """The module with more at the end of some sections: kind -> count and encoded items."""
    missing = set(additions) - {one.kind for one in own}
    if missing:
        raise ValueError("it has nothing that it exports, or no functions")
    out = bytearray(_HEAD)
    for section in own:
        body = section.body
        if section.kind in additions:
            had, at = leb(body, 0)
            more, items = additions[section.kind]
            body = encode(had + more) + body[at:] + items
        out += bytes([section.kind]) + encode(len(body)) + body
    return bytes(out)


def body_of(own: list[Section], kind: int) -> bytes:
    return next((one.body for one in own if one.kind == kind), b"\0")


def signatures(body: bytes) -> list[str | None]:
    """Of a type section, as text; None for what is not a function of plain numbers."""
    count, at = leb(body, 0)
    found: list[str | None] = []
    for _ in range(count):
        if body[at] != FUNCTION_TYPE:
            raise ValueError("its types are not functions alone")
        at += 1
        parts = []
        for word in ("param", "result"):
            size, at = leb(body, at)
            kinds = body[at : at + size]
            at += size
            parts.append((word, [VALUES.get(kind) for kind in kinds]))
        plain = all(None not in kinds and "v128" not in kinds for _, kinds in parts)
        text = " ".join(
            f"({word} {' '.join(kind for kind in kinds if kind)})" for word, kinds in parts if kinds
        )
        found.append(text if plain else None)
    return found


def imported_functions(body: bytes) -> Iterator[int]:
    """The type of each imported function. Nothing else may be imported."""
    count, at = leb(body, 0)
    for _ in range(count):
        for _name in range(2):
            size, at = leb(body, at)
            at += size
        if body[at] != FUNCTION_KIND:
            raise ValueError("it imports more than functions")
        number, at = leb(body, at + 1)
        yield number


def exports(body: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, kind, index."""
    count, at = leb(body, 0)
    for _ in range(count):
        size, at = leb(body, at)
        name = body[at : at + size].decode()
        at += size
        kind = body[at]
        index, at = leb(body, at + 1)
        yield name, kind, index


def defined_globals(body: bytes) -> Iterator[Global]:
    """Of a module that imports none."""
    count, at = leb(body, 0)
    for index in range(count):
        value, mutable = body[at], body[at + 1]
        # A reference of WebAssembly 3.0 has a heap type after it.
        at += 2
        if value in (0x63, 0x64) or mutable > 1:
            raise ValueError("it has globals of types that are not known here")
        at = _after_expression(body, at)
        yield Global(index, value, bool(mutable))


def _after_expression(body: bytes, at: int) -> int:
    """Of constants (and their sums, WebAssembly 3.0)."""
    while (operation := body[at]) != 0x0B:
        at += 1
        if operation in (0x41, 0x42, 0x23, 0xD0, 0xD2):
            _, at = leb(body, at)
        elif operation in (0x43, 0x44):
            at += 4 if operation == 0x43 else 8
        elif operation == 0xFD:
            _, at = leb(body, at)
            at += 16
        elif operation not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):
            raise ValueError("a global begins as what is not known here")
    return at + 1


def numbers(body: bytes) -> Iterator[int]:
    count, at = leb(body, 0)
    for _ in range(count):
        number, at = leb(body, at)
        yield number


def leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number at `at`, and where it ends."""
    value = shift = 0
    while shift < _MAX_LEB_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number in it has no end")


def encode(value: int) -> bytes:
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def _sections(module: bytes) -> Iterator[Section]:
    if module[:8] != _HEAD:
        raise ValueError("it is no core module")
    at, count = 8, 0
    while at < len(module):
        count += 1
        if count > _MAX_SECTIONS:
            raise ValueError(f"it has more than {_MAX_SECTIONS:,} sections")
        kind = module[at]
        size, at = leb(module, at + 1)
        if at + size > len(module):
            raise ValueError("it is not whole")
        yield Section(kind, module[at : at + size])
        at += size
