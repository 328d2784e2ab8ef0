"""How a worker shuts itself in, before the first guest. In two steps:

`shut_in` while the process has one thread, since Landlock's rules and dropped capabilities are a
thread's own and reach others only as they are started (the engine's compiler starts some).
`Sandbox.guard` when the engine's machine code is mapped: its filter takes the right to map more,
and reaches every thread.

What a guest that broke out of WebAssembly would find: no program to start, no socket to make, no
file but those that serve requests, nobody to signal, no secret in the environment.

A worker stays the account it was started as, root too: root without capabilities owns its files
like anybody else, and Landlock decides which of them it sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from isopod.errors import SandboxUnavailable
from isopod.sandbox import kernel, landlock, privileges, seccomp
from isopod.sandbox.features import Features
from isopod.sandbox.landlock import Rule

_MAX_FILE_BYTES = 4 << 30  # a memory image has 1 GiB at most
# What a worker reads of itself. Kept open: the kernel may forget a file in /proc that nobody has
# open, and the one it makes at the next look is another to Landlock.
OWN_FIGURES = (Path("/proc/self/statm"),)


@dataclass(frozen=True, slots=True)
class Folders:
    """What a worker works with. Nothing else can be opened once it is shut in."""

    read: tuple[Path, ...]
    change: tuple[Path, ...]


class Sandbox:
    """What holds: `on` names the layers, `missing` what the kernel did not offer."""

    def __init__(self, features: Features) -> None:
        self.on: list[str] = []
        self.missing = [one.what for one in features.missing()]
        self._filters = seccomp.library() if features.seccomp and features.libseccomp else None
        self._kept: tuple[IO[bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"on": list(self.on), "missing": list(self.missing)}

    def enter(self, folders: Folders, features: Features) -> None:
        self._kept = tuple(path.open("rb", buffering=0) for path in OWN_FIGURES)
        time.tzset()  # reads /etc/localtime, now or never
        self._put_on("empty environment", privileges.wipe_environment)
        self._put_on("no core dumps", privileges.no_traces)
        privileges.limit_file_size(_MAX_FILE_BYTES)
        if features.no_new_privs:
            self._put_on("no new privileges", privileges.no_new_privileges)
        if abi := features.landlock_abi:
            paths = rules(folders)
            self._put_on(f"landlock {abi}", lambda: landlock.restrict(abi, paths, connect=False))
        last = features.last_capability
        self._put_on("no capabilities", lambda: kernel.drop_capabilities(last))

    def guard(self, *, shown_code: bool = False, kill_unlisted: bool = False) -> None:
        """The last step; see `seccomp.guard_guests`. Raises SandboxUnavailable."""
        if (library := self._filters) is not None:

            def guard() -> None:
                seccomp.guard_guests(library, shown_code=shown_code, kill_unlisted=kill_unlisted)

            self._put_on("seccomp", guard)

    def _put_on(self, name: str, put_on: Callable[[], None]) -> None:
        try:
            put_on()
        except OSError as bad:
            raise SandboxUnavailable(
                f"the kernel refused {name!r}: {(bad.strerror or str(bad)).lower()}",
                details={"missing": [name]},
            ) from bad
        self.on.append(name)


def shut_in(folders: Folders, *, features: Features) -> Sandbox:
    """This process, for good. Raises SandboxUnavailable when the kernel refuses what it said it
    offers."""
    privileges.check_alone()
    sandbox = Sandbox(features)
    sandbox.enter(folders, features)
    return sandbox


def rules(folders: Folders) -> Iterable[Rule]:
    """Its folders; Python's and our code, which may be imported late (as sources: no library can
    be mapped then); the null device, which guests get as standard input."""
    yield from (Rule(path, landlock.READ) for path in folders.read)
    yield from (Rule(path, landlock.CHANGE) for path in folders.change)
    yield from (Rule(Path(path), landlock.READ) for path in privileges.code_folders())
    yield Rule(Path("/dev/null"), landlock.USE)
    yield Rule(Path("/dev/urandom"), landlock.READ)
    yield from (Rule(path, landlock.READ) for path in OWN_FIGURES)
    yield from (Rule(Path(path), landlock.READ) for path in privileges.ABOUT_THE_MACHINE)
