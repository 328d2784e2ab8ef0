"""What this process has open, and whether that comes back to what it was."""

import time
from pathlib import Path

_PATIENCE_S = 10.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_back_to(before: int) -> None:
    """The engine drops the files of an ended guest in threads of its own: a leak is what stays."""
    end = time.monotonic() + _PATIENCE_S
    while (now := descriptors()) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert now <= before
