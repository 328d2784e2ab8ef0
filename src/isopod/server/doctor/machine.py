"""The kernel's limits and the machine's state, as far as they decide how many guests there can be
and where their memory can end up. `proc` is /proc, but in tests."""

from __future__ import annotations

import ctypes
import resource
import shutil
import time
from pathlib import Path

from isopod.server.doctor.check import Check
from isopod.settings import NodeSettings

_GIB = 2**30
_FILES_WANTED = 65_536  # an instance holds about a dozen
_MAPS_WANTED = 65_530  # the kernel's default: some 16,000 of an instance's 4
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def check_limits(*, proc: Path, files: tuple[int, int]) -> list[Check]:
    """`files`: the soft and the hard limit of open files."""
    return [_open_files(*files), _maps(proc), _overcommit(proc), _core_pattern(proc)]


def check_machine(settings: NodeSettings, *, proc: Path, cgroup: Path, now: float) -> list[Check]:
    return [
        _disk("data", settings.data_dir),
        _disk("cache", settings.cache_dir),
        _memory(settings, cgroup),
        _swap(proc),
        *_clock(settings, now),
    ]


def open_files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _open_files(soft: int, hard: int) -> Check:
    text = f"{soft:,} (at most {hard:,})" if hard >= 0 else f"{soft:,} (no upper bound)"
    if 0 <= hard < _FILES_WANTED:
        advice = f"LimitNOFILE={_FILES_WANTED} in the unit, or `ulimit -Hn`"
        grave = hard < 1024
        return Check("limits", "open files", "problem" if grave else "warning", text, advice)
    return Check("limits", "open files", "ok", text)


def _maps(proc: Path) -> Check:
    found = _number(proc / "sys/vm/max_map_count")
    if found is None:
        return Check("limits", "max_map_count", "warning", "cannot be read")
    text = f"{found:,}: some {found // 4:,} instances in a worker"
    if found < _MAPS_WANTED:
        advice = f"sysctl vm.max_map_count={_MAPS_WANTED}"
        return Check("limits", "max_map_count", "warning", text, advice)
    return Check("limits", "max_map_count", "ok", text)


def _overcommit(proc: Path) -> Check:
    found = _number(proc / "sys/vm/overcommit_memory")
    if found == 2:
        text = "2: the kernel counts what instances reserve, which is far more than they use"
        return Check("limits", "overcommit", "warning", text, "sysctl vm.overcommit_memory=0")
    text = "cannot be read" if found is None else str(found)
    return Check("limits", "overcommit", "warning" if found is None else "ok", text)


def _core_pattern(proc: Path) -> Check:
    try:
        found = (proc / "sys/kernel/core_pattern").read_text().strip()
    except OSError:
        return Check("limits", "core dumps", "warning", "core_pattern cannot be read")
    if found.startswith("|"):
        # core(5): a limit of 0 does not hold for a pipe.
        text = (
            f"go to a program ({found[:60]!r}), whatever the limit says: guests' memory with them"
        )
        advice = "sysctl kernel.core_pattern=core, unless you trust what keeps them"
        return Check("limits", "core dumps", "warning", text, advice)
    return Check("limits", "core dumps", "ok", f"go to {found[:60]!r}, where the limit of 0 holds")


def _disk(name: str, path: Path) -> Check:
    while not path.exists():
        path = path.parent
    found = shutil.disk_usage(path)
    free = found.free / _GIB
    text = f"{free:,.1f} GiB free of {found.total / _GIB:,.1f} at {path}"
    if found.free < _GIB:
        return Check("machine", f"disk ({name})", "problem", text, "free space there")
    if free < 5 or found.free < found.total * 0.05:
        return Check("machine", f"disk ({name})", "warning", text, "free space there soon")
    return Check("machine", f"disk ({name})", "ok", text)


def _memory(settings: NodeSettings, cgroup: Path) -> Check:
    budget = settings.memory_budget_mib
    limit = _number(cgroup / "memory.max")
    if limit is not None and limit >> 20 < budget:
        text = f"the budget of {budget:,} MiB is above this control group's {limit >> 20:,} MiB"
        return Check("machine", "memory", "problem", text, "lower --memory-budget-mib")
    own = "no limit" if limit is None else f"{limit >> 20:,} MiB"
    return Check("machine", "memory", "ok", f"budget {budget:,} MiB; the control group: {own}")


def _swap(proc: Path) -> Check:
    try:
        lines = (proc / "swaps").read_text().splitlines()[1:]
    except OSError:
        return Check("machine", "swap", "warning", "cannot be read")
    used = [line.split()[0] for line in lines if line.split()]
    if not used:
        return Check("machine", "swap", "ok", "none: guests' memory is never written to a disk")
    text = f"{', '.join(used)}: guests' memory may be written there"
    return Check("machine", "swap", "warning", text, "encrypt it, or `swapoff -a`")


def _clock(settings: NodeSettings, now: float) -> list[Check]:
    """Usage is billed by this clock."""
    shown = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    newest = 0.0
    for path in (settings.state_path, settings.ledger_path):
        if path.exists():
            newest = max(newest, path.stat().st_mtime)
    if newest > now + 60:
        text = f"{shown} is before the last change of the node's files"
        return [Check("machine", "clock", "problem", text, "set it: usage would be billed twice")]
    state = _adjtimex()
    if state is None:
        return [
            Check("machine", "clock", "warning", f"{shown}; whether it is kept right is unknown")
        ]
    if state == _TIME_ERROR:
        advice = "run chrony or systemd-timesyncd: usage is billed by this clock"
        return [Check("machine", "clock", "warning", f"{shown}; not synchronized", advice)]
    return [Check("machine", "clock", "ok", f"{shown}; synchronized")]


def _adjtimex() -> int | None:
    """The clock's state; all zero asks and changes nothing. None: the kernel does not say."""
    state = int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512)))
    return None if state < 0 else state
