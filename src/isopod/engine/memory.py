"""The linear memory of one guest, seen from the host.

Guest pointers arrive as 32-bit numbers chosen by the guest; each range is checked against the
memory's size before a byte of it is read or written.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p, cast
from typing import Any

from isopod.engine import ffi
from isopod.engine.ffi import raw
from isopod.errors import GuestProtocolError

WASM_PAGE = 65536


class GuestMemory:
    """Valid as long as its store. It may grow; it never shrinks, and it never moves: the engine
    reserves the whole 4 GiB of a 32-bit memory at once."""

    def __init__(self, context: Any, memory: Any) -> None:
        self._context = context
        self.handle = memory  # the engine's
        self._known_size = 0
        data = ffi.memory_data(context, byref(memory))
        self._address = int(cast(data, c_void_p).value or 0)

    @property
    def size(self) -> int:
        """Bytes now."""
        return int(ffi.memory_data_size(self._context, byref(self.handle)))

    def grow(self, size: int) -> bool:
        """Grow to at least `size` bytes; whether the store's limits allowed it."""
        more = size - self.size
        if more <= 0:
            return True
        before = ctypes.c_uint64()
        error = raw.wasmtime_memory_grow(
            self._context, byref(self.handle), -(-more // WASM_PAGE), byref(before)
        )
        if error:
            raw.wasmtime_error_delete(error)
        return not error

    def base(self, pointer: int, size: int) -> int:
        """The host address of guest address 0, if [pointer, pointer + size) is within the memory.
        Raises GuestProtocolError."""
        if pointer + size > self._known_size:
            self._known_size = self.size  # it grew, or the guest lies
            if pointer + size > self._known_size:
                raise GuestProtocolError(
                    f"the guest named {size} bytes at {pointer:#x}, outside its memory"
                )
        return self._address

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self.base(pointer, size) + pointer, size)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self.base(pointer, len(data)) + pointer, data, len(data))

    def view(self) -> memoryview:
        """The memory itself, to read or patch while the guest is suspended. Valid until it runs."""
        size = self.size
        return memoryview((ctypes.c_char * size).from_address(self.base(0, size))).cast("B")
