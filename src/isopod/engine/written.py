"""Which pages of this process's memory it has written, and giving back those it need not have.

A guest that counts references writes a page whenever it looks at an object of its image, and when
it is done the page is what it was: of a JavaScript guest's pages, two in five. Such a page is a
copy of one that all instances of the image share, and can be one again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from isopod.engine.image import PAGE
from isopod.errors import EngineError
from isopod.sandbox.kernel import without_capabilities

_PAGEMAP = Path("/proc/self/pagemap")
# Documentation/admin-guide/mm/pagemap.rst in the kernel's sources.
_ENTRY = 8
_PRESENT, _OF_A_FILE = 1 << 63, 1 << 61

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class WrittenPages:
    """Of private mappings of files. Opened before the process shuts itself in."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls) -> Self | None:
        """None where the kernel does not tell. It would tell a process with capabilities where in
        the machine's memory the pages are, which nobody needs who runs strangers' code."""
        try:
            with without_capabilities():
                return cls(os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def close(self) -> None:
        os.close(self._fd)

    def of(self, base: int, size: int) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of each run of pages in [base, base + size) that are not the file's."""
        start = None
        entries = self._entries(base, size)
        for number, entry in enumerate(entries):
            written = entry & _PRESENT and not entry & _OF_A_FILE
            if written and start is None:
                start = number
            elif not written and start is not None:
                yield start * PAGE, (number - start) * PAGE
                start = None
        if start is not None:
            yield start * PAGE, (len(entries) - start) * PAGE

    def _entries(self, base: int, size: int) -> array[int]:
        return array("Q", os.pread(self._fd, size // PAGE * _ENTRY, base // PAGE * _ENTRY))


def give_back(written: WrittenPages, base: int, size: int) -> int:
    """Of the image that is mapped at `base`: share the written pages again that hold what the
    image holds. How many bytes these were. Nobody may write there meanwhile."""
    given = 0
    for offset, length in list(written.of(base, size)):
        at = base + offset
        held = ctypes.string_at(at, length)
        # From here to the end of the run the guest's memory is only in `held`.
        if _libc.madvise(at, length, mmap.MADV_DONTNEED):
            raise EngineError(f"cannot give memory back: {os.strerror(ctypes.get_errno())}")
        of_image = ctypes.string_at(at, length)
        for page in range(0, length, PAGE):
            mine = held[page : page + PAGE]
            if mine == of_image[page : page + PAGE]:
                given += PAGE
            else:
                ctypes.memmove(at + page, mine, PAGE)
    return given
