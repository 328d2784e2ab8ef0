"""One app's log file on disk, as one worker appends to it: rotated by size, never an error.

Several workers append to one file, each of their pieces in one `write`. A file that has grown past
its size becomes `.1` and a new one begins, so an app that floods its log costs two files. Losing
lines is better than losing the app: what cannot be written is told to the caller, who counts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

MAX_BYTES = 8 << 20
# Between two looks at whether the file is full, or another worker has rotated it.
_RECHECK_S = 1.0
_RECHECKS = 8  # in a file of full size


class LogFile:
    """`max_bytes`: of one of the two files."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._fd = -1
        self._checked = 0.0
        self._since_check = 0
        self._cut = False

    def append(self, data: bytes) -> bool:
        """Whether it was written, whole. `data` is whole lines."""
        if not data:
            return True
        if self._cut:  # half a line must not spoil the next one
            data = b"\n" + data
        self._since_check += len(data)
        try:
            written = os.write(self._descriptor(), data)
        except OSError:
            return False
        self._cut = written < len(data)
        return not self._cut

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _descriptor(self) -> int:
        now = time.monotonic()
        few = self._since_check < self._max_bytes // _RECHECKS
        if self._fd >= 0 and few and now - self._checked < _RECHECK_S:
            return self._fd
        self._checked, self._since_check = now, 0
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == ours.st_ino and ours.st_size < self._max_bytes:
                    return self._fd
            self.close()
        self._rotate()
        # One that came from behind a cordon may be a link to another app's.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        return self._fd

    def _rotate(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size < self._max_bytes:
                return
            # Not made if it is absent: another worker may have renamed it just now.
            with self._path.open("r") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                ours, there = os.fstat(held.fileno()), self._path.stat()
                # Else another worker was first, and `.1` holds what was written until then.
                if there.st_ino == ours.st_ino and ours.st_size >= self._max_bytes:
                    self._path.rename(self._path.with_name(self._path.name + ".1"))
