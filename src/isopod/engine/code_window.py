"""How machine code comes into a process that may not make any memory executable.

A worker maps a *window* before it is shut in: memory that is shared with a process beside it, and
that this one may execute and never write, whatever it does (the descriptor it was mapped from is
open for reading, so the kernel refuses the right to write for good). Who is beside it writes
machine code there. A module is then deserialised as always, in memory that is never made executable
(the sandbox's filter lets that call succeed and do nothing), and the window's pages are put over
its code. So nothing that a worker could ever write is executable.

Range by range: one is used again when the module in it is gone. No owner has more than a share.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import threading
from ctypes import byref, c_void_p
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from isopod.engine.ffi import raw
from isopod.errors import EngineError, MachineCodeFull, NodeBusy

_PAGE = mmap.PAGESIZE
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_MOST_SECTIONS = 64
_FAILED = c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_map, _remap, _compare = _libc.mmap, _libc.mremap, _libc.memcmp
_map.restype = _remap.restype = c_void_p
_map.argtypes = [
    *(c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]
_remap.argtypes = [c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, c_void_p]
_compare.argtypes = [c_void_p, c_void_p, ctypes.c_size_t]


class WindowFull(NodeBusy):
    """There is room again when a module that nothing runs in is let go. Its code is its base's."""


@dataclass(frozen=True, slots=True)
class Text:
    """Where a compiled module's machine code is in its file; whole pages."""

    offset: int
    size: int


class CodeWindow:
    """Made before the process is shut in, or has a thread. Safe for several threads."""

    def __init__(self, size: int, *, share: int) -> None:
        """`size` bytes of address space, of which one owner has `share` at most; memory only where
        there is code."""
        self.size = size
        self._share = share
        self._lock = threading.Lock()
        self._used: dict[int, tuple[int, str]] = {}  # offset -> bytes, owner
        self.writer = os.memfd_create("machine-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.writer, size)
        # Cut short, it would be SIGBUS for whoever runs code in it.
        fcntl.fcntl(self.writer, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        reader = os.open(f"/proc/self/fd/{self.writer}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._base = _map(
                None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, reader, 0
            )
        finally:
            os.close(reader)
        if self._base in (None, _FAILED):
            raise EngineError(f"cannot map machine code: {os.strerror(ctypes.get_errno())}")

    def give_up_writing(self) -> None:
        """From now on only who holds a copy of `writer` writes."""
        os.close(self.writer)
        self.writer = -1

    def place(self, size: int, owner: str) -> int:
        """Where so many bytes go, theirs until `free`. Raises MachineCodeFull when `owner` has its
        share, WindowFull when there is no room for anybody."""
        with self._lock:
            held = sum(had for had, whose in self._used.values() if whose == owner)
            if held + size > self._share:
                raise MachineCodeFull(
                    f"the machine code of tenant {owner!r} takes {held >> 20} MiB in this worker,"
                    f" and {max(1, size >> 20)} more are over its {self._share >> 20} MiB"
                )
            at = 0
            for start in sorted(self._used):
                if start - at >= size:
                    break
                at = start + self._used[start][0]
            if at + size > self.size:
                raise WindowFull("there is no room for the machine code of one more app")
            self._used[at] = size, owner
            return at

    def free(self, at: int) -> None:
        with self._lock:
            self._used.pop(at, None)

    def adopt(
        self, engine: wasmtime.Engine, compiled: Path, text: Text, at: int
    ) -> wasmtime.Module:
        """The module in `compiled`, a file that nobody changes and only we wrote, with the code
        that was written at `at`."""
        try:
            module = wasmtime.Module.deserialize_file(engine, str(compiled))
        except wasmtime.WasmtimeError as error:
            raise EngineError("an app's machine code cannot be loaded") from error
        start, end = c_void_p(), c_void_p()
        raw.wasmtime_module_image_range(module.ptr(), byref(start), byref(end))
        code = int(start.value or 0) + text.offset
        shown = int(self._base or 0) + at
        # What the engine changed as it loaded (addresses of functions of its own) would be lost.
        if code + text.size > int(end.value or 0) or _compare(code, shown, text.size):
            raise EngineError("an app's machine code is not what was made of its module")
        # A size of 0 leaves the window as it is and maps the same pages a second time.
        if _remap(shown, 0, text.size, _MREMAP_MAYMOVE | _MREMAP_FIXED, code) != code:
            raise EngineError(f"cannot map machine code: {os.strerror(ctypes.get_errno())}")
        return module


def fill(writer: int, compiled: Path, text: Text, at: int) -> None:
    """Write the code of `compiled` into a window."""
    with compiled.open("rb") as file:
        file.seek(text.offset)
        data = file.read(text.size)
    view = memoryview(data)
    while view:
        written = os.pwrite(writer, view, at)
        view, at = view[written:], at + written


def text_of(compiled: Path) -> Text:
    """The section ".text" of an ELF file of the engine's. Raises EngineError."""
    try:
        with compiled.open("rb") as file:
            head = file.read(64)
            (at,) = struct.unpack_from("<Q", head, 0x28)
            size, count, names = struct.unpack_from("<HHH", head, 0x3A)
            if size != 64 or count > _MOST_SECTIONS or names >= count:
                raise ValueError("its head")
            file.seek(at)
            sections = list(struct.iter_unpack("<IIQQQQIIQQ", file.read(size * count)))
            file.seek(sections[names][4])
            texts = file.read(min(sections[names][5], 4096))
        found = [one for one in sections if texts[one[0] :].startswith(b".text\0")]
        text = Text(offset=found[0][4], size=found[0][5])
        if text.offset % _PAGE or text.size % _PAGE or not text.size:
            raise ValueError("its pages")
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise EngineError("a compiled module has no machine code that can be shown") from error
    return text
