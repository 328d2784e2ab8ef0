"""Work on bytes that a tenant chose, in a process that has nothing: no file but the one it writes,
no folder, no socket, a bounded time and memory. Who takes it over holds its own result."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from isopod.errors import BlobCorrupt, DiskFull, IsopodError, ModuleInvalid
from isopod.sandbox import kernel, landlock, seccomp
from isopod.sandbox.features import Features

_MAX_ERROR_BYTES = 64 << 10
_MORE_DATA = 1 << 30  # mapped, and never all touched
_OVER_TIME = frozenset({signal.SIGALRM, signal.SIGXCPU})


@dataclass(frozen=True, slots=True)
class Limits:
    seconds: int
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`error`: what it says itself. Else it was ended, for its time or for something else."""

    error: IsopodError | None
    over_time: bool
    failed: bool


def run_apart(
    work: Callable[[], None], keep: Iterable[int], limits: Limits, features: Features
) -> Ended:
    """`keep`: the open files that it has. Needs a process of one thread."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        keep_only({*keep, writing})
        _run(work, writing, limits, features, parent)
    os.close(writing)
    try:
        said = _all(reading)
    finally:
        os.close(reading)
        _, status = os.waitpid(pid, 0)
    over_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _OVER_TIME
    return Ended(_error(said), over_time, status != 0)


def keep_only(descriptors: Iterable[int]) -> None:
    """Close all others but the three that every process has."""
    after = 2
    for fd in sorted(fd for fd in descriptors if fd > after):
        os.closerange(after + 1, fd)
        after = fd
    os.closerange(after + 1, 1 << 20)


def end_with_parent(parent: int) -> None:
    kernel.end_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def _run(
    work: Callable[[], None], errors: int, limits: Limits, features: Features, parent: int
) -> NoReturn:
    status = 1
    try:
        end_with_parent(parent)
        _bound(limits)
        if features.landlock_abi:
            landlock.restrict(features.landlock_abi, (), connect=False)
        if features.seccomp and features.libseccomp:
            # The engine makes what it has compiled executable before it can be taken out of it.
            seccomp.guard_guests(seccomp.library(), machine_code=True)
        try:
            work()
            status = 0
        except IsopodError as bad:
            os.write(errors, json.dumps(bad.to_wire()).encode())
    finally:
        os._exit(status)


def _bound(limits: Limits) -> None:
    """Its own end, whatever it does: the kernel ends it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limits.seconds)
    cpu_s = limits.seconds * max(1, len(os.sched_getaffinity(0)))
    for which, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, limits.memory_bytes + _MORE_DATA),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
    ):
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
    with suppress(OSError):
        os.nice(5)  # who serves goes first


def _all(reading: int) -> bytes:
    said = b""
    while len(said) <= _MAX_ERROR_BYTES and (piece := os.read(reading, _MAX_ERROR_BYTES)):
        said += piece
    return said


def _error(said: bytes) -> IsopodError | None:
    """As far as it may say so: it may be in other hands."""
    with suppress(ValueError, TypeError, AttributeError):
        found = IsopodError.from_wire(json.loads(said))
        if isinstance(found, (ModuleInvalid, BlobCorrupt, DiskFull)):
            return found
    return None
