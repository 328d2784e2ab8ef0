"""How a builder shuts itself in. A build has two halves, and gives up more before the second:

1. The package is unpacked and read, and its dependencies are fetched by uv, wheels only, so that
   nothing of theirs runs. This needs the network and two programs, Python and uv.
2. What the app wrote runs, in guests: compiled, started, its memory kept. This needs neither.

Both in namespaces of their own where the kernel allows it, and with Landlock from the start: the
state, the token, other programs' files and other processes are out of reach in either half.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from isopod.sandbox import kernel, landlock, privileges, seccomp
from isopod.sandbox.features import landlock_offered, last_capability, library_offered
from isopod.sandbox.landlock import Rule

_MAX_FILE_BYTES = 4 << 30
_MORE_DATA = 1 << 30  # mapped, but never all touched: stacks, a guest's memory as it is made
_MAX_PROCESSES = 256
_PROGRAMS = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
# What the C library and uv read to reach an index by its name.
_NETWORK_FILES = (
    *("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services", "protocols"),
    *("ssl", "pki", "ca-certificates", "crypto-policies", "localtime", "passwd", "group"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "os-release"),
)


@dataclass(frozen=True, slots=True)
class Folders:
    """`change` in both halves; in the first only `fetch` (the caches of what is fetched), and `run`
    (programs of a prepared runtime, such as a bundler)."""

    read: tuple[Path, ...]
    change: tuple[Path, ...]
    fetch: tuple[Path, ...]
    run: tuple[Path, ...] = ()


def new_namespaces() -> list[str]:
    """For this process (user, mount, ipc) and the next that it starts (pid); which of them the
    kernel refused. Needs a process of one thread."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
    except OSError:
        return ["user namespace", "mount namespace", "ipc namespace", "pid namespace"]
    with suppress(OSError):  # then everybody is nobody in it; the files stay ours
        for name, text in (("setgroups", "deny"), ("uid_map", uid), ("gid_map", gid)):
            line = text if name == "setgroups" else f"{text} {text} 1"
            Path(f"/proc/self/{name}").write_text(str(line))
    refused = []
    for name, flag in (
        ("mount", kernel.CLONE_NEWNS),
        ("ipc", kernel.CLONE_NEWIPC),
        ("pid", kernel.CLONE_NEWPID),
    ):
        try:
            kernel.unshare(flag)
            if name == "mount":
                kernel.mount_private()
        except OSError:
            refused.append(f"{name} namespace")
    return refused


class BuilderSandbox:
    """The process that builds. `missing` names what the kernel did not offer."""

    def __init__(self, folders: Folders, *, missing: Iterable[str]) -> None:
        self._folders = folders
        self._filters = _library()
        self._closed = False
        self.missing = list(missing)
        if self._filters is None:
            self.missing.append("seccomp")
        if not landlock_offered():
            self.missing.append("landlock")

    def enter(self, environment: Mapping[str, str], *, memory_bytes: int, cpu_s: float) -> None:
        """The first half. `environment`: uv's, which may name files."""
        privileges.no_traces()
        privileges.limit_file_size(_MAX_FILE_BYTES)
        _lower(resource.RLIMIT_DATA, memory_bytes + _MORE_DATA)
        _lower(resource.RLIMIT_CPU, int(cpu_s))
        _lower(resource.RLIMIT_NPROC, _MAX_PROCESSES)
        privileges.no_new_privileges()
        with suppress(OSError):  # outside of a namespace of its own it has nothing to give away
            privileges.programs_get_no_capabilities()
        if abi := landlock_offered():
            rules = (*self._rules(), *self._rules_to_fetch(environment))
            landlock.restrict(abi, rules, connect=True)
        if self._filters is not None:
            seccomp.forbid_always(self._filters)

    def close_network(self) -> None:
        """The second half; once. Raises SandboxUnavailable when a thread would stay outside."""
        if self._closed:
            return
        self._closed = True
        privileges.check_alone()
        try:
            kernel.unshare(kernel.CLONE_NEWNET)
        except OSError:
            self.missing.append("net namespace")
        privileges.wipe_environment()
        if abi := landlock_offered():
            landlock.restrict(abi, self._rules(), connect=False)
        kernel.drop_capabilities(last_capability())
        if self._filters is not None:
            # Guests' code is mapped, and the engine's helpers compiled, after this.
            seccomp.guard_guests(self._filters, machine_code=True)

    def _rules(self) -> Iterable[Rule]:
        yield from (Rule(path, landlock.READ) for path in self._folders.read)
        yield from (Rule(path, landlock.CHANGE) for path in self._folders.change)
        yield from (Rule(Path(path), landlock.READ) for path in privileges.code_folders())
        yield from (Rule(Path(path), landlock.READ) for path in privileges.ABOUT_THE_MACHINE)
        yield Rule(Path("/dev/null"), landlock.USE)
        yield Rule(Path("/dev/urandom"), landlock.READ)

    def _rules_to_fetch(self, environment: Mapping[str, str]) -> Iterable[Rule]:
        yield from (Rule(path, landlock.CHANGE) for path in self._folders.fetch)
        for path in (*_PROGRAMS, *privileges.code_folders(), *map(str, self._folders.run)):
            yield Rule(Path(path), landlock.RUN)
        yield from (Rule(Path("/etc", name), landlock.READ) for name in _NETWORK_FILES)
        yield from (Rule(path, landlock.READ) for path in named_paths(environment))


def named_paths(environment: Mapping[str, str]) -> list[Path]:
    """Files and folders that variables name: certificates, indexes on this machine."""
    found = []
    for value in environment.values():
        for word in value.split() if "://" in value else (value,):
            # An index may have a name: "pypi=file:///srv/simple".
            text = word[word.find("file://") :] if "file://" in word else word
            path = unquote(urlsplit(text).path) if text.startswith("file://") else text
            if path.startswith("/") and path != "/":
                found.append(Path(path))
    return found


def _library() -> Any:
    return seccomp.library() if library_offered() else None


def _lower(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(which, (most, most))
