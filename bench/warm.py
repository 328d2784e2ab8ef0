"""A warm Flask request: CPU time, latency and throughput, beside gunicorn's sync worker.

gunicorn's sync worker closes every connection, so isopod is measured both ways: with keep-alive,
as a browser or a proxy would, and with a new connection for each request, like for like. The
rounds of all servers alternate, so that a change of the machine's load reaches all of them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import native
from bench.figures import Figure, Result
from bench.load import Job, Load, generate
from tools import processes
from tools.node import running

ROUNDS = 5
REQUESTS = 2500  # a round; CPU time comes in steps of 10 ms, so a round must use many of them
CONNECTIONS = 16


@dataclass(slots=True)
class Series:
    """One server used in one way: what to ask and what came back."""

    name: str
    port: int
    hostname: str
    pids: list[int]
    connections: int
    keep_alive: bool
    path: str = "/"
    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def round(self, requests: int) -> Load:
        before = processes.cpu_s(self.pids)
        load = generate(
            Job(self.port, self.hostname, requests, self.connections, self.keep_alive, self.path)
        )
        if load.errors:
            raise RuntimeError(f"{self.name}: wrong answers: {load.errors}")
        self.cpu_us.append((processes.cpu_s(self.pids) - before) / requests * 1e6)
        self.rate.append(load.requests_per_s)
        self.latencies_ms += load.latencies_ms
        return load

    def forget(self) -> None:
        self.cpu_us, self.rate, self.latencies_ms = [], [], []

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_us)

    def percentile_ms(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_ms, n=100)[percent - 1]


def run(say: Callable[[str], None]) -> Result:
    """Figures of one run; ratios only between servers of the same run."""
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        say("starting the servers")
        node = stack.enter_context(running())
        node.cli("deploy", str(native.APP), "--name", "hello")
        one = stack.enter_context(native.running(1))
        each = stack.enter_context(native.running(cores))
        isopod = (node.gateway_port, f"hello.localhost:{node.gateway_port}")
        pids = [worker.pid for worker in node.workers()]
        if not pids:
            raise RuntimeError("the node has no worker processes")
        series: dict[str, Series] = {}
        for connections in (1, CONNECTIONS):
            for name, (port, hostname), who, keep in [
                ("isopod keep-alive", isopod, pids, True),
                ("isopod new connections", isopod, pids, False),
                ("gunicorn 1 worker", (one.port, "localhost"), one.workers, False),
                (f"gunicorn {cores} workers", (each.port, "localhost"), each.workers, False),
            ]:
                key = f"{name}, {connections}"
                series[key] = Series(key, port, hostname, who, connections, keep)
        say("warming up")
        for one_series in series.values():
            one_series.round(300)
            one_series.forget()
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            for one_series in series.values():
                one_series.round(REQUESTS)
    return _result(series, cores)


def _result(series: dict[str, Series], cores: int) -> Result:
    peer = series["gunicorn 1 worker, 1"]
    busy_peer = series[f"gunicorn {cores} workers, {CONNECTIONS}"]
    keep, new = series["isopod keep-alive, 1"], series["isopod new connections, 1"]
    busy = series[f"isopod keep-alive, {CONNECTIONS}"]
    busy_new = series[f"isopod new connections, {CONNECTIONS}"]
    figures = [
        Figure("CPU per request / gunicorn's, keep-alive", keep.cpu / peer.cpu, "times", 1.5),
        Figure("CPU per request / gunicorn's, new connections", new.cpu / peer.cpu, "times", 1.5),
        Figure(
            f"the same at {CONNECTIONS} connections, keep-alive",
            busy.cpu / busy_peer.cpu,
            "times",
            1.5,
            f"gunicorn with {cores} workers",
        ),
        Figure(
            f"the same at {CONNECTIONS} connections, new connections",
            busy_new.cpu / busy_peer.cpu,
            "times",
            1.5,
            f"gunicorn with {cores} workers",
        ),
        Figure("p50 at one connection, keep-alive", keep.percentile_ms(50), "ms", 1.0),
        Figure("p50 at one connection, new connections", new.percentile_ms(50), "ms", 1.0),
    ]
    for name, one in series.items():
        figures.append(Figure(f"CPU per request: {name}", one.cpu, "us"))
        figures.append(Figure(f"p50: {name}", one.percentile_ms(50), "ms"))
        figures.append(Figure(f"p99: {name}", one.percentile_ms(99), "ms"))
        figures.append(Figure(f"throughput: {name}", statistics.median(one.rate), "requests/s"))
    raw = {name: {"cpu_us": one.cpu_us, "requests_per_s": one.rate} for name, one in series.items()}
    return Result(
        "warm",
        figures,
        raw,
        bars={name: one.cpu for name, one in series.items()},
        bars_unit="CPU us per request (label: server, connections)",
    )
