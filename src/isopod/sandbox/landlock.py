"""Which files a process may still open: Landlock, the kernel's own access rules for anybody.

Rules name files and folders that are there when they are made, by inode: what appears under an
allowed folder later is allowed, a file that takes an allowed file's place is not. Descriptors that
are open already keep their rights, so a listening socket or a log stays usable.

Through ctypes, because the one package for it (`landlock` 1.0.0.dev5) knows files only: neither TCP
nor signals (docs/decisions/010-sandbox.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isopod.sandbox import kernel

# linux/landlock.h; the number is the version that brought a right.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
USE = READ | _WRITE_FILE  # a device: no folder, nothing to make
CHANGE = (
    READ
    | _WRITE_FILE
    | _TRUNCATE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SYM
    | _REFER
)


@dataclass(frozen=True, slots=True)
class Rule:
    """`rights` (READ, RUN, USE or CHANGE) on `path` and all below it. One that is not there is
    left out: nothing can be opened there."""

    path: Path
    rights: int


def handled_files(abi: int) -> int:
    """Every right on files that this version knows: what no rule gives is denied."""
    rights = _FIRST
    for version, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if abi >= version:
            rights |= right
    return rights


def restrict(abi: int, rules: Iterable[Rule], *, connect: bool) -> None:
    """Shut this thread, and those it starts, in. Needs no_new_privs. `connect`: TCP connections
    stay possible; binding a port never does."""
    files = handled_files(abi)
    tcp = (_BIND_TCP | (0 if connect else _CONNECT_TCP)) if abi >= 4 else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= 6 else 0
    ruleset = kernel.landlock_ruleset(files, tcp, scoped)
    try:
        for rule in rules:
            with suppress(FileNotFoundError):
                _allow(ruleset, rule, files)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, rule: Rule, files: int) -> None:
    parent = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    try:
        known = rule.rights & files
        kernel.landlock_allow(ruleset, parent, known if rule.path.is_dir() else known & _OF_FILES)
    finally:
        os.close(parent)
