"""What this kernel offers to shut a process in with, and what it lacks.

Only looks: the process that asks is as free afterwards as before. Namespaces are tried in a child,
because whether one may make them depends on sysctls, security modules and containers, and no file
says it. `sandbox.worker` and `sandbox.builder` are handed the answer, so that a test can hand them
that of a poorer kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isopod.sandbox import kernel, seccomp

LIBSECCOMP = "libseccomp.so.2"
NAMESPACES = ("user", "mount", "ipc", "net", "pid")
# What each version of Landlock added (linux: Documentation/userspace-api/landlock.rst).
LANDLOCK_RIGHTS = {
    1: "files",
    2: "moving files between folders",
    3: "truncating",
    4: "TCP bind and connect",
    5: "device ioctls",
    6: "signals and abstract sockets",
    7: "audit log",
}
LANDLOCK_WANTED = 6  # nothing that came later is used
_TRY_S = 10.0

# Each in turn: those after the user namespace need it where the caller is not root.
_TRY = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, gid, found = os.geteuid(), os.getegid(), {}
for name, flag in json.loads(sys.argv[1]).items():
    if libc.unshare(flag):
        found[name] = os.strerror(ctypes.get_errno()).lower()
        continue
    found[name] = ""
    if name == "user":
        try:
            for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                               ("gid_map", f"{gid} {gid} 1")):
                with open(f"/proc/self/{file}", "w") as out:
                    out.write(text)
        except OSError as bad:
            found[name] = os.strerror(bad.errno).lower()
print(json.dumps(found))
"""
_FLAGS = {
    "user": kernel.CLONE_NEWUSER,
    "mount": kernel.CLONE_NEWNS,
    "ipc": kernel.CLONE_NEWIPC,
    "net": kernel.CLONE_NEWNET,
    "pid": kernel.CLONE_NEWPID,
}


@dataclass(frozen=True, slots=True)
class Missing:
    """Something the sandbox would use. `effect`: what is weaker without it."""

    what: str
    why: str
    effect: str

    def __str__(self) -> str:
        return f"{self.what} ({self.why}): {self.effect}"


@dataclass(frozen=True, slots=True)
class Features:
    """`..._why` is "" where there is nothing to explain."""

    kernel: str
    no_new_privs: bool
    seccomp: bool
    libseccomp: str  # its version; "" when the library cannot be loaded
    landlock_abi: int  # 0: none
    landlock_why: str
    namespaces: Mapping[str, str]  # name -> why it cannot be made, "" when it can
    last_capability: int
    capabilities_held: int  # bits; what a process of ours would drop

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"namespaces": dict(self.namespaces)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Features:
        return Features(**body)

    def missing(self) -> list[Missing]:
        """In the order of what they are worth."""
        lacks = []
        if not self.seccomp:
            lacks.append(
                Missing(
                    "seccomp",
                    "the kernel has no system call filter",
                    "workers and builders may make any system call",
                )
            )
        elif not self.libseccomp:
            lacks.append(
                Missing(
                    "libseccomp",
                    f"{LIBSECCOMP} cannot be loaded; install the package libseccomp2 or libseccomp",
                    "workers and builders may make any system call",
                )
            )
        if not self.landlock_abi:
            lacks.append(
                Missing(
                    "landlock",
                    self.landlock_why,
                    "workers and builders may open every file of the account they run as",
                )
            )
        else:
            lacks += _of_landlock(self.landlock_abi)
        if not self.no_new_privs:
            lacks.append(
                Missing(
                    "no_new_privs", "the kernel is too old", "set-uid programs keep their power"
                )
            )
        for name, why in self.namespaces.items():
            if why:
                lacks.append(Missing(f"{name} namespace", why, _WITHOUT_NAMESPACE[name]))
        return lacks


_WITHOUT_NAMESPACE = {
    "user": "builders stay in the node's, and cannot make the others without root",
    "mount": "builders see the node's mounts",
    "ipc": "builders share System V IPC with the node",
    "net": "that a builder reaches no network rests on its system call filter alone",
    "pid": "builders see other processes' ids",
}


def _of_landlock(abi: int) -> list[Missing]:
    effects = {
        2: "nothing is weaker, but some moves of files fail",
        3: "files that may only be read can be truncated",
        4: "that a worker makes no connection rests on its system call filter alone",
        5: "ioctls on devices rest on the system call filter alone",
        6: "that a worker signals no other process rests on its system call filter alone",
    }
    why = f"this kernel has version {abi} of Landlock"
    return [
        Missing(f"landlock: {LANDLOCK_RIGHTS[version]}", why, effect)
        for version, effect in effects.items()
        if abi < version <= LANDLOCK_WANTED
    ]


def probe() -> Features:
    """Ask the kernel; about 30 ms, most of it a child that tries the namespaces."""
    abi, why = _landlock()
    return Features(
        kernel=platform.release(),
        no_new_privs=_answers(kernel.PR_GET_NO_NEW_PRIVS),
        seccomp=_seccomp(),
        libseccomp=_libseccomp(),
        landlock_abi=abi,
        landlock_why=why,
        namespaces=_namespaces(),
        last_capability=last_capability(),
        capabilities_held=_capabilities_held(),
    )


def _answers(option: int) -> bool:
    try:
        kernel.prctl(option)
    except OSError:
        return False
    return True


def _seccomp() -> bool:
    # Its actions are listed where filters are compiled in (CONFIG_SECCOMP_FILTER).
    try:
        return "errno" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return _answers(21)  # PR_GET_SECCOMP: /proc/sys may be hidden


def _libseccomp() -> str:
    class Version(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint) for name in ("major", "minor", "micro")]

    try:
        seccomp.library()
        ask = ctypes.CDLL(LIBSECCOMP).seccomp_version
    except (ImportError, RuntimeError, OSError, AttributeError):
        return ""
    ask.restype = ctypes.POINTER(Version)
    found = ask().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def library_offered() -> bool:
    """Whether system calls can be filtered here."""
    return _seccomp() and bool(_libseccomp())


def landlock_offered() -> int:
    """The version; 0 when there is none."""
    return _landlock()[0]


def _landlock() -> tuple[int, str]:
    try:
        return kernel.landlock_abi(), ""
    except OSError as bad:
        # ENOSYS: not compiled in. EOPNOTSUPP: not among the security modules chosen at boot.
        known = {38: "this kernel was built without it", 95: "it was disabled at boot (lsm=)"}
        return 0, known.get(bad.errno or 0, (bad.strerror or str(bad)).lower())


def _namespaces() -> dict[str, str]:
    command = [sys.executable, "-I", "-S", "-c", _TRY, json.dumps(_FLAGS)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=_TRY_S, stdin=subprocess.DEVNULL
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as bad:
        return dict.fromkeys(NAMESPACES, f"could not be tried: {type(bad).__name__}")
    return {name: str(found[name]) for name in NAMESPACES}


def last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return 63  # more than any kernel has; the first that it does not know ends the dropping


def _capabilities_held() -> int:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0 if os.geteuid() else -1
