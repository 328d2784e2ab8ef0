"""What it costs that no instance ever serves two requests: `[isolation] mode = "request"`.

One worker, so that its requests per second are those of one core; the client has the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench import many, sites
from bench.exchange import right
from bench.figures import Figure, Result, percentile
from bench.load import Job, Load, generate
from tools import processes
from tools.node import Node

REQUESTS = 600
ROUNDS = 3
CONNECTIONS = (1, 8)


def run(say: Callable[[str], None]) -> Result:
    loads: dict[str, list[Load]] = {}
    cpu_ms: dict[str, list[float]] = {}
    with many.home() as home, many.up(home, workers=1, port=0, control_port=0) as node:
        say("deploying the app with and without")
        for mode in ("request", "app"):
            app = sites.hello(home / mode, f'[isolation]\nmode = "{mode}"\n')
            node.cli("deploy", str(app), "--name", mode)
        counts = {
            mode: [
                right(node.gateway_port, f"{mode}.localhost", "/count").body.decode()
                for _ in range(20)
            ]
            for mode in ("request", "app")
        }
        if set(counts["request"]) != {"1"}:
            raise RuntimeError(f"an instance served twice: {counts['request']}")
        for one_round in range(1, ROUNDS + 1):
            say(f"round {one_round} of {ROUNDS}")
            for mode in ("request", "app"):
                for connections in CONNECTIONS:
                    key = f"{mode}, {connections}"
                    load, used = _load(node, mode, connections)
                    loads.setdefault(key, []).append(load)
                    cpu_ms.setdefault(key, []).append(used)
    figures = []
    for key, each in loads.items():
        rate = statistics.median(load.requests_per_s for load in each)
        ms = [value for load in each for value in load.latencies_ms]
        mode, _, clients = key.partition(", ")
        figures.append(
            Figure(
                f'mode = "{mode}", {clients} at once',
                rate,
                "requests/s",
                200.0 if key == f"request, {CONNECTIONS[-1]}" else None,
                f"one worker, so one core; {statistics.median(cpu_ms[key]):.2f} ms CPU a request, "
                f"p50 {statistics.median(ms):.1f} ms, p99 {percentile(ms, 99):.1f} ms",
                at_least=True,
            )
        )
    note = "a count in the app's memory; with mode = app it reached " + max(counts["app"], key=int)
    figures.append(Figure("highest count that 20 requests saw", 1, "", 1.0, note))
    return Result(
        "isolation",
        figures,
        raw={
            key: {"requests_per_s": [load.requests_per_s for load in each], "cpu_ms": cpu_ms[key]}
            for key, each in loads.items()
        },
        bars={figure.name: figure.value for figure in figures[:-1]},
        bars_unit="requests/s of one core",
    )


def _load(node: Node, mode: str, connections: int) -> tuple[Load, float]:
    pids = [worker.pid for worker in node.workers()]
    before = processes.cpu_s(pids)
    load = generate(Job(node.gateway_port, f"{mode}.localhost", REQUESTS, connections))
    if load.errors:
        raise RuntimeError(f"mode {mode}: wrong answers: {load.errors}")
    return load, (processes.cpu_s(pids) - before) / REQUESTS * 1e3
