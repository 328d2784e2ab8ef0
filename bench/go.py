"""A net/http hello in Go: from zero and warm, beside the same program compiled for this machine.

The native program is the example with its last line as it would be elsewhere,
`http.ListenAndServe`. The rounds alternate, so that a change of the machine's load reaches both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import native
from bench.cold import from_zero, open_everywhere
from bench.figures import Figure, Result, percentile
from bench.warm import Series
from isopod.runtimes.go import toolchain
from tools.node import ROOT, running

ROUNDS = 5
COLD = 60  # a round
WARM = 4000
STARTS = 10
EXAMPLE = ROOT / "examples" / "go-hello"
_IMPORT = f'isopod "{toolchain.SDK_MODULE}"\n'


def run(say: Callable[[str], None]) -> Result:
    """Figures of one run; ratios only between servers of the same run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isopod-go-")))
        say("compiling the native program")
        program = _native(folder)
        say("starting the node")
        node = stack.enter_context(running())
        node.cli("runtimes", "prepare", "go")
        say("deploying")
        began = time.monotonic()
        node.cli("deploy", str(EXAMPLE), "--name", "hello", "--strict")
        deploy_s = time.monotonic() - began
        first = open_everywhere(node, "hello", "/")
        port = native.free_port()
        process = subprocess.Popen([str(program)], env={"PORT": str(port)})
        stack.callback(native.stop, process)
        native.first_response(port, process=process)
        pids = [worker.pid for worker in node.workers()]
        host = f"hello.localhost:{node.gateway_port}"
        ours = Series("isopod", node.gateway_port, host, pids, 16, True)
        theirs = Series("native", port, f"localhost:{port}", [process.pid], 16, True)
        for one in (ours, theirs):
            one.round(1000)
            one.forget()
        cold: list[float] = []
        starts: list[float] = []
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            cold += [from_zero(node, "hello", "/")[0] for _ in range(COLD)]
            starts += [_start_ms(program) for _ in range(STARTS)]
            for one in (ours, theirs):
                one.round(WARM)
    return Result(
        "go",
        [
            Figure("from zero, p50", statistics.median(cold), "ms", 3, f"{len(cold)} requests"),
            Figure("from zero, p99", percentile(cold, 99), "ms"),
            Figure("first start in a worker", max(first), "ms", note="the slowest"),
            Figure("a native process to its first response, p50", statistics.median(starts), "ms"),
            Figure("CPU per warm request", ours.cpu, "us", 250, "HTTP included"),
            Figure("CPU per request of the native program", theirs.cpu, "us"),
            Figure("warm, p50, 16 at once", ours.percentile_ms(50), "ms"),
            Figure("throughput, 16 at once", statistics.median(ours.rate), "requests/s"),
            Figure("deploy of the example", deploy_s, "s", note="built, started, its image taken"),
        ],
        {"cold_ms": cold, "start_ms": starts, "cpu_us": ours.cpu_us, "native_us": theirs.cpu_us},
        bars={"isopod": ours.cpu, "native net/http": theirs.cpu},
        bars_unit="CPU us per warm request of a hello in Go, HTTP included",
    )


def _native(folder: Path) -> Path:
    go = toolchain.find()
    if go is None:
        raise RuntimeError("there is no Go toolchain on this machine")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source)
    main = source / "main.go"
    text = (
        main.read_text()
        .replace(_IMPORT, "")
        .replace("isopod.Serve(mux)", 'http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux)')
    )
    main.write_text(text)
    caches = {"HOME": str(folder), "GOCACHE": str(folder / "cache"), "GOTOOLCHAIN": "local"}
    command = [str(go.program), "build", "-o", str(folder / "hello"), "."]
    subprocess.run(command, cwd=source, env={"PATH": os.defpath, **caches}, check=True)
    return folder / "hello"


def _start_ms(program: Path) -> float:
    port = native.free_port()
    began = time.monotonic()
    process = subprocess.Popen([str(program)], env={"PORT": str(port)}, stderr=subprocess.DEVNULL)
    try:
        native.first_response(port, process=process)
        return (time.monotonic() - began) * 1e3
    finally:
        native.stop(process)
