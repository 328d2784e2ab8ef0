"""A CGI program in C: requests per second of one core, each in a fresh instance,
beside a process of the same program, compiled for this machine, started for each request.

Both programs are `isopod init --template c`. The process is started with posix_spawn and read to
its end, with no HTTP server before it: less than any CGI server would do.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, Result
from bench.warm import Series
from tools.node import ROOT, running

ROUNDS = 5
REQUESTS = 4000
STARTS = 500
TEMPLATE = ROOT / "src" / "isopod" / "runtimes" / "wasi" / "templates" / "c"
ZIG = (sys.executable, "-m", "ziglang", "cc")
_VARIABLES = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "GATEWAY_INTERFACE": "CGI/1.1"}


def run(say: Callable[[str], None]) -> Result:
    """Figures of one run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isopod-wcgi-")))
        say("compiling")
        app = shutil.copytree(TEMPLATE, folder / "app")
        compiler = f"CC={' '.join(ZIG)} -target wasm32-wasi"
        subprocess.run(["make", "-s", compiler], cwd=app, check=True)
        native = folder / "native"
        subprocess.run([*ZIG, "-O2", "-s", "-o", str(native), str(app / "hello.c")], check=True)
        say("starting the node")
        node = stack.enter_context(running())
        node.cli("deploy", str(app), "--name", "hello")
        pids = [worker.pid for worker in node.workers()]
        host = f"hello.localhost:{node.gateway_port}"
        series = {
            connections: Series(str(connections), node.gateway_port, host, pids, connections, True)
            for connections in (1, 16)
        }
        for one in series.values():
            one.round(1000)
            one.forget()
        processes: list[float] = []
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            for one in series.values():
                one.round(REQUESTS)
            processes.append(_starts(native))
    return _result(series, processes)


def _starts(program: Path) -> float:
    """CPU of a start of a process, us: its own, and what it takes to start it and read it."""
    before = _cpu_s()
    for _ in range(STARTS):
        ours, its = os.pipe()
        pid = os.posix_spawn(
            str(program),
            [str(program)],
            _VARIABLES,
            file_actions=[(os.POSIX_SPAWN_DUP2, its, 1), (os.POSIX_SPAWN_CLOSE, ours)],
        )
        os.close(its)
        while os.read(ours, 65536):
            pass
        os.close(ours)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the native program failed")
    return (_cpu_s() - before) / STARTS * 1e6


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def _result(series: dict[int, Series], processes: list[float]) -> Result:
    figures = [
        Figure(
            f"requests per second of one core, {connections} connection{'s' * (connections > 1)}",
            1e6 / one.cpu,
            "requests/s",
            1500,
            "a fresh instance for each, HTTP included",
            at_least=True,
        )
        for connections, one in series.items()
    ]
    for connections, one in series.items():
        figures.append(Figure(f"CPU per request, {connections} at once", one.cpu, "us"))
        figures.append(Figure(f"p50, {connections} at once", one.percentile_ms(50), "ms"))
        figures.append(Figure(f"p99, {connections} at once", one.percentile_ms(99), "ms"))
        rate = statistics.median(one.rate)
        figures.append(Figure(f"throughput, {connections} at once", rate, "requests/s"))
    process = statistics.median(processes)
    figures.append(Figure("CPU of a native process for each, without HTTP", process, "us"))
    return Result(
        "wcgi",
        figures,
        {"cpu_us": {str(name): one.cpu_us for name, one in series.items()}, "native": processes},
        bars={
            "isopod, HTTP included": series[16].cpu,
            "a native process, without HTTP": process,
        },
        bars_unit="CPU us per request of a CGI program in C",
    )
