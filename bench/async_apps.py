"""Async apps: a warm Starlette request's CPU beside uvicorn's, and one guest that waits for many.

uvicorn runs with uvloop and httptools, one process. The rounds of both alternate. Then one guest
has fifty requests at once, each of which asks a slow upstream with httpx: what it takes beyond the
upstream's own time is the guest's, and of one core.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import many, native, slow_upstream
from bench.crowd import crowd
from bench.exchange import right
from bench.figures import Figure, Result
from bench.warm import Series
from tools import processes
from tools.node import ROOT

APP = ROOT / "bench" / "apps" / "starlette"
ROUNDS = 5
REQUESTS = 2500
CONNECTIONS = 16
AT_ONCE = 50
WAIT_S = 0.1
MANIFEST = """
[network]
allow = ["127.0.0.1:{port}"]
[env]
UPSTREAM = "http://127.0.0.1:{port}/"
[limits]
memory_mib = 512
"""


def run(say: Callable[[str], None]) -> Result:
    with ExitStack() as stack:
        say("starting uvicorn and a node with one worker")
        home = stack.enter_context(many.home())
        upstream = stack.enter_context(slow_upstream.running(WAIT_S))
        app = home / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        (app / "isopod.toml").write_text(MANIFEST.format(port=upstream.port))
        node = stack.enter_context(
            many.up(
                home,
                workers=1,
                port=0,
                control_port=0,
                egress_private=f"127.0.0.1:{upstream.port}",
            )
        )
        node.cli("deploy", str(app), "--name", "app")
        host = "app.localhost"
        peer_port, peer_pids = stack.enter_context(_uvicorn(app))
        pids = [worker.pid for worker in node.workers()]
        series = [
            Series(f"{name}, {connections}", port, hostname, who, connections, True)
            for connections in (1, CONNECTIONS)
            for name, port, hostname, who in (
                ("isopod", node.gateway_port, host, pids),
                ("uvicorn", peer_port, "localhost", peer_pids),
            )
        ]
        for one in series:
            one.round(300)
            one.forget()
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            for one in series:
                one.round(REQUESTS)
        say(f"{AT_ONCE} requests at once, each asks an upstream that takes {WAIT_S:g} s")
        right(node.gateway_port, host, "/upstream")
        took: list[float] = []
        cpu: list[float] = []
        with crowd(node.gateway_port) as visitors:
            for _ in range(ROUNDS + 1):
                before = processes.cpu_s(pids)
                load = visitors.ask([host] * AT_ONCE, at_once=AT_ONCE, path="/upstream")
                cpu.append((processes.cpu_s(pids) - before) * 1e3)
                if load.errors:
                    raise RuntimeError(f"wrong answers: {load.errors}")
                took.append(load.seconds * 1e3)
        most = upstream.most_at_once()
    return _result(series, took[1:], cpu[1:], first_ms=took[0], most=most)


@contextmanager
def _uvicorn(app: Path) -> Iterator[tuple[int, list[int]]]:
    """Its port, and its process."""
    port = native.free_port()
    words = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "error"]
    words += ["--loop", "uvloop", "--http", "httptools", "--port", str(port), "app:app"]
    process = native.launch(words, app)
    try:
        native.first_response(port, process=process)
        yield port, [process.pid]
    finally:
        native.stop(process)


def _result(
    series: list[Series], took: list[float], cpu: list[float], *, first_ms: float, most: int
) -> Result:
    by_name = {one.name: one for one in series}
    figures = []
    for connections in (1, CONNECTIONS):
        ours = by_name[f"isopod, {connections}"]
        peer = by_name[f"uvicorn, {connections}"]
        figures.append(
            Figure(
                f"CPU of a Starlette request / uvicorn's, {connections} connections",
                ours.cpu / peer.cpu,
                "times",
                1.7,
                f"{ours.cpu:.0f} us and {peer.cpu:.0f} us; p50 {ours.percentile_ms(50):.2f} ms and "
                f"{peer.percentile_ms(50):.2f} ms",
            )
        )
    figures.append(
        Figure(
            f"{AT_ONCE} requests at once in one guest, each waits {WAIT_S * 1e3:.0f} ms upstream",
            statistics.median(took),
            "ms",
            250.0,
            f"median of {len(took)}, best {min(took):.0f}; the first, which connects, "
            f"{first_ms:.0f}; CPU {statistics.median(cpu):.0f} ms; {most} waited at once",
        )
    )
    return Result(
        "async",
        figures,
        raw={"took_ms": took, "cpu_ms": cpu, "cpu_us": {s.name: s.cpu_us for s in series}},
        bars={one.name: one.cpu for one in series},
        bars_unit="us of CPU per request",
    )
