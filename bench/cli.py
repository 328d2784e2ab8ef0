"""Wall time of the commands that only show something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench import native
from bench.figures import Figure, Result
from tools.node import running

TIMES = 5
COMMANDS = (
    ("--help",),
    ("apps",),
    ("apps", "--json"),
    ("app", "hello"),
    ("status",),
    ("status", "--json"),
    ("logs", "hello"),
    ("runtimes",),
)


def run(say: Callable[[str], None]) -> Result:
    """Each as a new process, as a person would start it."""
    medians = {}
    with running() as node:
        say("deploying one app")
        node.cli("deploy", str(native.APP), "--name", "hello")
        for command in COMMANDS:
            name = " ".join(("isopod", *command))
            say(name)
            times = []
            for _ in range(TIMES):
                began = time.perf_counter()
                node.cli(*command)
                times.append(time.perf_counter() - began)
            medians[name] = statistics.median(times)
    figures = [Figure(f"`{name}`", seconds, "s", 0.6) for name, seconds in medians.items()]
    return Result("cli", figures, {"median_s": medians}, medians, "s")
