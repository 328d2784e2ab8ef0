"""How late this machine is: a promise in seconds holds for a process that is run, and whose disk
answers. Tests of such promises allow for as much more."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from types import TracebackType
from typing import Self

_EVERY_S = 0.05


class Lateness:
    """Notes, while it is entered, the longest that a small write of a file came too late."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with tempfile.TemporaryFile() as file:
            over = False
            while not over:
                began = time.monotonic()
                over = self._over.wait(_EVERY_S)
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
                self.worst_s = max(self.worst_s, time.monotonic() - began - _EVERY_S)
