"""What a process of ours gives up whatever it does: privileges, its core, its environment."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path

from isopod.errors import SandboxUnavailable
from isopod.sandbox import kernel
from isopod.settings import forget_environment

# How many CPUs there are, and which: what their machine code is compiled for.
ABOUT_THE_MACHINE = ("/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo")
_ENDING_S = 1.0
_NO_ROOT, _NO_ROOT_LOCKED = 1 << 0, 1 << 1  # linux/securebits.h


def no_new_privileges() -> None:
    """No program that this process starts has more rights than it, set-uid or not."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def no_traces() -> None:
    """No core file, and no other process of the same account may read this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def limit_file_size(most_bytes: int) -> None:
    """A larger file is an error of the one who writes it; Python ignores SIGXFSZ."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(hard, most_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def programs_get_no_capabilities() -> None:
    """In a user namespace of its own a process has every capability there; its programs none."""
    kernel.prctl(kernel.PR_SET_SECUREBITS, _NO_ROOT | _NO_ROOT_LOCKED)


def wipe_environment() -> None:
    """Variables are forgotten, and overwritten where the kernel shows them (/proc/PID/environ)."""
    held = kernel.environment_strings()
    forget_environment()
    for address, size in held:
        ctypes.memset(address, 0, size)


def check_alone() -> None:
    """Raises SandboxUnavailable when other threads run, which would stay outside. One that was
    joined may take a moment to be gone."""
    end = time.monotonic() + _ENDING_S
    while (threads := _threads()) != 1:
        if time.monotonic() > end:
            raise SandboxUnavailable(f"{threads} threads run already: they would stay outside")
        time.sleep(0.001)


def _threads() -> int:
    # Its links are counted, not listed: to list it takes a right that is given up here.
    return Path("/proc/self/task").stat().st_nlink - 2


def code_folders() -> list[str]:
    """Where Python's and our own code is: modules may be imported late."""
    found = [*sys.path, sys.prefix, sys.base_prefix]
    return sorted({os.path.realpath(path) for path in found if path})
