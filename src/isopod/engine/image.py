"""Memory images: an instance's linear memory in a file, and a start that is one `mmap` of it.

An image is the whole linear memory, page for page, with holes where it is zero. Restored, it is
mapped copy-on-write over a fresh instance's memory: a page is shared with every other instance of
the image until it is written. One mapping per instance: many small ones would hit
`vm.max_map_count`.

Only linear memory is saved. That is the whole state of a runtime whose only mutable global is the
stack pointer (at its base between calls) and whose table never grows; others need more.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.memory import WASM_PAGE
from isopod.errors import EngineError

PAGE = 4096
_ZERO = bytes(PAGE)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_MAP_FIXED = 0x10


@dataclass(frozen=True, slots=True)
class Image:
    """An image file, open; who opened it closes it, and instances keep their mapping. `clock_ns`
    is the guest's monotonic clock when it was taken; a restored guest's goes on from there."""

    fd: int
    size: int
    clock_ns: int


def map_over(image: Image, base: int) -> None:
    """Map `image` copy-on-write at `base`, over memory of at least its size."""
    at = _libc.mmap(
        base,
        image.size,
        mmap.PROT_READ | mmap.PROT_WRITE,
        mmap.MAP_PRIVATE | _MAP_FIXED,
        image.fd,
        0,
    )
    if at != base or image.size % WASM_PAGE:
        raise EngineError(f"cannot map a memory image: {os.strerror(ctypes.get_errno())}")


def pages(memory: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """(offset, content) of the pages that are not zero."""
    view = memoryview(memory)
    for offset in range(0, len(view), PAGE):
        page = view[offset : offset + PAGE]
        if page != _ZERO:
            yield offset, page


def write_sparse(memory: bytes | memoryview, path: Path) -> int:
    """Write the image of `memory` to a new file; how many pages it holds. Not renamed, not
    synced: the caller publishes it (truncating a mapped file would be SIGBUS)."""
    count = 0
    with path.open("xb") as file:
        file.truncate(len(memory))
        for offset, page in pages(memory):
            file.seek(offset)
            file.write(page)
            count += 1
    return count
