"""The system calls that have no wrapper in Python's library, each checked once, here.

Only what the sandbox needs; numbers are those of the generic table, which x86-64, arm64 and RISC-V
share for every call that is younger than 2019 (include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Sequence

_PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_REC, MS_PRIVATE = 0x4000, 0x40000

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    """`struct landlock_ruleset_attr`; a kernel takes as much of it as it knows."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("fs", "net", "scoped")]


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def prctl(option: int, *arguments: int) -> int:
    """Raises OSError."""
    given = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(ctypes.c_int(option), *given))


def end_with_parent() -> None:
    """From now on: this process is killed when the thread that started it ends. Whoever cannot
    know that the parent still lives asks `os.getppid` afterwards."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)))


def mount_private() -> None:
    """Mounts made from here on are not seen outside this mount namespace, nor theirs in it."""
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))


def landlock_abi() -> int:
    """The version of Landlock that this kernel speaks. Raises OSError where it has none."""
    return _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)


def landlock_ruleset(fs: int, net: int, scoped: int) -> int:
    """A descriptor of a new ruleset that handles, and so denies, these rights."""
    fields = (fs, net, scoped)
    known = max((n for n, bits in enumerate(fields, 1) if bits), default=1)
    attr = _RulesetAttr(*fields)
    return _syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(attr), known * 8, 0)


def landlock_allow(ruleset: int, parent: int, rights: int) -> None:
    """Allow `rights` on the file or below the folder that descriptor `parent` is open on."""
    attr = _PathBeneathAttr(rights, parent)
    _syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(attr), 0)


def landlock_restrict(ruleset: int) -> None:
    """This thread, and those it makes, for good."""
    _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def drop_capabilities(last: int) -> None:
    """None effective, permitted, inheritable or ambient, and none to be had by `exec`. `last` is
    the highest the kernel knows."""
    for number in range(last + 1):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:  # past the last one; or without CAP_SETPCAP, and so with none to drop
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header, nothing = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)))


@contextlib.contextmanager
def without_capabilities() -> Iterator[None]:
    """None effective in this thread meanwhile: what is opened then shows what anybody may see."""
    header, had, none = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)(), (_CapData * 2)()
    _checked(_libc.capget(ctypes.byref(header), ctypes.byref(had)))
    for now, before in zip(none, had, strict=True):
        now.permitted, now.inheritable = before.permitted, before.inheritable
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(none)))
    try:
        yield
    finally:
        _checked(_libc.capset(ctypes.byref(header), ctypes.byref(had)))


def environment_strings() -> Sequence[tuple[int, int]]:
    """(address, bytes) of each variable in this process's environment."""
    block = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
    found: list[tuple[int, int]] = []
    while block and (address := block[len(found)]):
        found.append((address, len(ctypes.string_at(address))))
    return found


def _syscall(number: int, *arguments: object) -> int:
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *given))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
