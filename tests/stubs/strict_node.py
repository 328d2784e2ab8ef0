"""`isopod up` whose workers are killed by a system call that is on neither list, and stand still
at SIGUSR1. The kernel is as poor as ISOPOD_TEST_LACKS says."""

import os
import sys
from dataclasses import replace

import typer

from isopod.cli import main, up
from isopod.sandbox.features import Features, probe
from isopod.server import supervisor

LACKS = {"": {}, "landlock": {"landlock_abi": 0, "landlock_why": "it was disabled at boot"}}
lacks = LACKS[os.environ.get("ISOPOD_TEST_LACKS", "")]


def ask_kernel() -> Features:
    return replace(probe(), **lacks)


real_up = supervisor.up
supervisor.up = lambda settings, report: real_up(
    settings, report=report, worker_module="strict_worker", ask_kernel=ask_kernel
)
assert typer and up
sys.exit(main.run(sys.argv[1:]))
