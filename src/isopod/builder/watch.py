"""Watches the process that builds, from outside: its time, and the memory of it and its children.

Linux bounds a process's address space, which says nothing about an engine that reserves 4 GiB for
a guest of 1 MiB; and a control group is not always ours to make. So what is resident and shared
with nobody is added up, ten times a second; `RLIMIT_DATA` stops what grows faster than that.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from isopod.errors import IsopodError

_LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


def watch(
    pid: int,
    *,
    memory_bytes: int,
    seconds: float,
    too_much: Callable[[], IsopodError],
    too_long: Callable[[], IsopodError],
) -> tuple[int, IsopodError | None]:
    """Until child `pid` ends, by itself or because of what is returned. Gives its wait status."""
    end = time.monotonic() + seconds
    verdict: IsopodError | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if verdict is None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
                verdict = too_long()
            return status, verdict
        if verdict is None:
            if time.monotonic() > end:
                verdict = too_long()
            elif sum(own_bytes(one) for one in family(pid)) > memory_bytes:
                verdict = too_much()
            if verdict is not None:
                for one in list(family(pid)):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(one, signal.SIGKILL)
        time.sleep(_LOOK_S)


def family(pid: int) -> Iterator[int]:
    """A process, its children and theirs."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def own_bytes(pid: int) -> int:
    """Resident and not of a file; 0 for a process that is gone."""
    with suppress(OSError, ValueError, IndexError):
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * _PAGE
    return 0
