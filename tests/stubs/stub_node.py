"""`isopod up` over the stub worker and builder: the arguments are its options."""

import sys
from pathlib import Path

import typer

from isopod.cli import main, up
from isopod.server import supervisor

real_up = supervisor.up
supervisor.up = lambda settings, report: real_up(
    settings,
    report=report,
    worker_module="stub_worker",
    control_module="stub_control",
    runtimes=tuple,
)
assert Path and typer and up
sys.exit(main.run(["up", *sys.argv[1:]]))
