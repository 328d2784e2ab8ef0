"""How the process that copies a volume shuts itself in: what it reads was written by a guest, and
what it is sent by whoever may deploy.

SQLite and the tar reader parse those bytes. Who took this process over would find one volume, the
archive that is made or read, and Python's code: no network, no program, no other file.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path

from isopod.sandbox import kernel, landlock, privileges, seccomp
from isopod.sandbox.features import landlock_offered, last_capability, library_offered
from isopod.sandbox.landlock import Rule

_MOST_MEMORY = 1 << 30  # an archive's headers, a database's cache
_MOST_CPU_S = 3600


def shut_in(change: Iterable[Path], *, most_file_bytes: int) -> list[str]:
    """This process, for good; what the kernel did not offer. `change`: the volume, its archive and
    a folder for the copy of a database. `most_file_bytes`: no file grows beyond that."""
    missing = []
    filters = seccomp.library() if library_offered() else None
    privileges.check_alone()
    privileges.wipe_environment()
    privileges.no_traces()
    for which, most in (
        (resource.RLIMIT_DATA, _MOST_MEMORY),
        (resource.RLIMIT_CPU, _MOST_CPU_S),
        (resource.RLIMIT_FSIZE, most_file_bytes),
    ):
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(which, (most, most))
    privileges.no_new_privileges()
    if abi := landlock_offered():
        landlock.restrict(abi, _rules(change), connect=False)
    else:
        missing.append("landlock")
    kernel.drop_capabilities(last_capability())
    if filters is not None:
        seccomp.guard_guests(filters)
    else:
        missing.append("seccomp")
    return missing


def _rules(change: Iterable[Path]) -> Iterable[Rule]:
    yield from (Rule(path, landlock.CHANGE) for path in change)
    yield from (Rule(Path(path), landlock.READ) for path in privileges.code_folders())
    yield Rule(Path("/dev/null"), landlock.USE)
    yield Rule(Path("/dev/urandom"), landlock.READ)
