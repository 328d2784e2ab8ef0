"""Make a module's mutable globals part of its memory image.

An image is linear memory alone. A module also has globals, and most are not exported: Go keeps its
goroutine and its stack in eight of them. So two functions are added to the module: one writes all
mutable globals to memory, before the image is taken; the other reads them back in an instance that
was restored. Nothing of the module's own changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from isopod.engine.sections import (
    CODE,
    EXPORT,
    FUNCTION,
    FUNCTION_KIND,
    FUNCTION_TYPE,
    GLOBAL,
    IMPORT,
    TYPE,
    body_of,
    defined_globals,
    encode,
    extend,
    imported_functions,
    numbers,
    signatures,
    split,
)
from isopod.errors import ModuleInvalid

SAVE, LOAD = "isopod.save_globals", "isopod.load_globals"
FORMAT = 1  # raise it when the added functions change
MAX_BYTES = 16 << 10
_BYTES = {0x7F: 4, 0x7E: 8, 0x7D: 4, 0x7C: 8, 0x7B: 16}
_STORE = {0x7F: b"\x36", 0x7E: b"\x37", 0x7D: b"\x38", 0x7C: b"\x39", 0x7B: b"\xfd\x0b"}
_LOAD = {0x7F: b"\x28", 0x7E: b"\x29", 0x7D: b"\x2a", 0x7C: b"\x2b", 0x7B: b"\xfd\x00"}
_LOCAL_GET_0, _GLOBAL_GET, _GLOBAL_SET, _END = b"\x20\x00", b"\x23", b"\x24", b"\x0b"
_TAKES_AN_ADDRESS = bytes((FUNCTION_TYPE, 1, 0x7F, 0))


@dataclass(frozen=True, slots=True)
class Kept:
    """A module with the two functions; each takes the address of `size` bytes."""

    module: bytes
    size: int


def keep_globals(module: bytes) -> Kept:
    """Raises ModuleInvalid for what cannot be kept. The engine validates what is made."""
    try:
        return _keep(module)
    except (IndexError, ValueError) as error:
        raise ModuleInvalid(f"the module cannot be kept in an image: {error}") from error


def _keep(module: bytes) -> Kept:
    own = split(module)
    imported = sum(1 for _ in imported_functions(body_of(own, IMPORT)))
    functions = imported + sum(1 for _ in numbers(body_of(own, FUNCTION)))
    types = len(signatures(body_of(own, TYPE)))
    size, save, load = 0, b"", b""
    for one in defined_globals(body_of(own, GLOBAL)):
        if not one.mutable:
            continue
        if one.value not in _BYTES:
            raise ValueError("it has a global that changes and is a reference")
        # Any alignment is allowed, and none promised.
        place = b"\0" + encode(size)
        name = encode(one.index)
        save += _LOCAL_GET_0 + _GLOBAL_GET + name + _STORE[one.value] + place
        load += _LOCAL_GET_0 + _LOAD[one.value] + place + _GLOBAL_SET + name
        size += _BYTES[one.value]
    if size > MAX_BYTES:
        raise ValueError(f"its globals have {size:,} bytes, of at most {MAX_BYTES:,}")
    code = b"".join(encode(len(body)) + body for body in (b"\0" + save + _END, b"\0" + load + _END))
    names = b"".join(
        encode(len(name)) + name.encode() + bytes((FUNCTION_KIND,)) + encode(functions + at)
        for at, name in enumerate((SAVE, LOAD))
    )
    made = extend(
        own,
        {
            TYPE: (1, _TAKES_AN_ADDRESS),
            FUNCTION: (2, encode(types) * 2),
            EXPORT: (2, names),
            CODE: (2, code),
        },
    )
    return Kept(made, size)
