"""Where a guest's descriptor 2 goes: a memory file of fixed size, one per instance.

Output of the app travels through host calls; what arrives here are the last words of the
language runtime itself ("Fatal Python error..."). The engine's own stderr callback runs on a
foreign thread and can abort the process, and a growing file would be a way to fill memory: so the
file is sealed at `CAPACITY` bytes, and writes beyond that fail in the guest.
"""

from __future__ import annotations

import fcntl
import os

import wasmtime

CAPACITY = 64 << 10


class StderrFile:
    def __init__(self) -> None:
        self._fd = os.memfd_create("guest-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._read_to = 0

    def attach(self, config: wasmtime.WasiConfig) -> None:
        # The engine truncates the file as it opens it: the size is set and sealed after.
        config.stderr_file = f"/proc/self/fd/{self._fd}"
        os.ftruncate(self._fd, CAPACITY)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)

    def read_new(self) -> str:
        if self._fd < 0 or os.pread(self._fd, 1, self._read_to) in (b"", b"\0"):
            return ""
        data = os.pread(self._fd, CAPACITY, self._read_to).rstrip(b"\0")
        self._read_to += len(data)
        return data.decode("utf-8", "replace")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
