"""Async apps: a warm Starlette request's CPU beside uvicorn's, and one guest that waits for many.

uvicorn runs with uvloop and httptools, one process. The rounds of both alternate. Then one guest
has fifty requests at once, each of which asks a slow upstream, with httpx and with asyncio's
streams alone: what it takes beyond the upstream's own time is the guest's, and of one core.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Fifty requests at once that wait, some times over."""

    took_ms: list[float]
    cpu_ms: list[float]

    @property
    def note(self) -> str:
        first, *rest = self.took_ms
        return (
            f"median of {len(rest)}, best {min(rest):.0f}; the first {first:.0f}; "
            f"CPU {statistics.median(self.cpu_ms[1:]):.0f} ms"
        )


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
        peer_port, peer_pids = stack.enter_context(_uvicorn(app, upstream.port))
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
        waits = {
            name: _at_once(port, hostname, who, path)
            for name, port, hostname, who, path in (
                ("isopod, httpx", node.gateway_port, host, pids, "/upstream"),
                ("isopod, streams", node.gateway_port, host, pids, "/streams"),
                ("uvicorn, httpx", peer_port, "localhost", peer_pids, "/upstream"),
            )
        }
        most = upstream.most_at_once()
    return _result(series, waits, most)


def _at_once(port: int, host: str, pids: list[int], path: str) -> AtOnce:
    right(port, host, path)
    took: list[float] = []
    cpu: list[float] = []
    with crowd(port) as visitors:
        for _ in range(ROUNDS + 1):
            before = processes.cpu_s(pids)
            load = visitors.ask([host] * AT_ONCE, at_once=AT_ONCE, path=path)
            cpu.append((processes.cpu_s(pids) - before) * 1e3)
            if load.errors:
                raise RuntimeError(f"wrong answers: {load.errors}")
            took.append(load.seconds * 1e3)
    return AtOnce(took, cpu)


@contextmanager
def _uvicorn(app: Path, upstream: int) -> Iterator[tuple[int, list[int]]]:
    """Its port, and its process."""
    port = native.free_port()
    words = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "error"]
    words += ["--loop", "uvloop", "--http", "httptools", "--port", str(port), "app:app"]
    process = native.launch(words, app, env={"UPSTREAM": f"http://127.0.0.1:{upstream}/"})
    try:
        native.first_response(port, process=process)
        yield port, [process.pid]
    finally:
        native.stop(process)


def _result(series: list[Series], waits: dict[str, AtOnce], most: int) -> Result:
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
    for name, one in waits.items():
        figures.append(
            Figure(
                f"{AT_ONCE} at once that each wait {WAIT_S * 1e3:.0f} ms upstream: {name}",
                statistics.median(one.took_ms[1:]),
                "ms",
                250.0 if name.startswith("isopod") else None,
                f"{one.note}; {most} waited at once",
            )
        )
    return Result(
        "async",
        figures,
        raw={
            "at_once_ms": {name: one.took_ms for name, one in waits.items()},
            "at_once_cpu_ms": {name: one.cpu_ms for name, one in waits.items()},
            "cpu_us": {s.name: s.cpu_us for s in series},
        },
        bars={one.name: one.cpu for one in series},
        bars_unit="us of CPU per request",
    )
