"""All checks, in the order in which they are shown."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from isopod.sandbox.features import Features, probe
from isopod.server.doctor.advisories import TABLE, check_versions, load
from isopod.server.doctor.check import Check
from isopod.server.doctor.files import check_files
from isopod.server.doctor.installed import installed_versions
from isopod.server.doctor.machine import check_limits, check_machine, open_files
from isopod.settings import NodeSettings


def examine(settings: NodeSettings, *, table: Path = TABLE) -> list[Check]:
    """Takes a fraction of a second; changes nothing."""
    versions, checks = installed_versions()
    proc = Path("/proc")
    return [
        *checks,
        *check_versions(load(table), versions, machine=platform.machine()),
        *check_kernel(probe()),
        *check_files(settings, uid=os.geteuid()),
        *check_limits(proc=proc, files=open_files()),
        *check_machine(settings, proc=proc, cgroup=Path("/sys/fs/cgroup"), now=time.time()),
    ]


def check_kernel(features: Features) -> list[Check]:
    """What the sandbox would use and this kernel lacks, in the order of what it is worth. The first
    two keep a guest that got out of the engine from the rest of the machine."""
    has = [f"kernel {features.kernel}"]
    if features.no_new_privs:
        has.append("no_new_privs")
    if features.seccomp and features.libseccomp:
        has.append(f"seccomp (libseccomp {features.libseccomp})")
    if features.landlock_abi:
        has.append(f"Landlock {features.landlock_abi}")
    able = [name for name, why in features.namespaces.items() if not why]
    if able:
        has.append(f"namespaces: {', '.join(able)}")
    checks = [Check("kernel", "sandbox", "ok", ", ".join(has))]
    for one in features.missing():
        grave = one.what in ("seccomp", "libseccomp", "landlock", "no_new_privs")
        checks.append(
            Check(
                "kernel",
                one.what,
                "problem" if grave else "warning",
                f"missing ({one.why}): {one.effect}",
                "see docs/security.md; --require-sandbox refuses to start without" if grave else "",
            )
        )
    return checks
