"""Guests that wait, one each for a slow upstream: WSGI apps that call a model scale by instances.

All are asked at once while they sleep, so that the bench holds their starts too; a probe asks
another app meanwhile. Nobody is answered before all wait (within half a minute), so that all wait
at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import many, sites, slow_upstream
from bench.crowd import crowd
from bench.exchange import right
from bench.figures import Figure, Result, percentile
from bench.load import Load
from bench.probe import Probe, probe
from tools.node import Node

GUESTS = 2000
WAIT_S = 10.0
BUDGET_MIB = 16_384
APPS = 4  # they share the guests: one app's are at most a thousand in a worker
TARGET_MIB = 6 * 1024.0
ASK = """

import urllib.request


@app.get("/wait")
def wait():
    with urllib.request.urlopen("http://127.0.0.1:{port}/", timeout=60) as answer:
        return answer.read()
"""
MANIFEST = """
[network]
allow = ["127.0.0.1:{port}"]
[scaling]
max_instances = 1000
queue = 5000
idle_s = 86400
[limits]
memory_mib = 64
deadline_ms = 120000
"""


def run(say: Callable[[str], None]) -> Result:
    with many.home() as home, slow_upstream.running(WAIT_S, together=GUESTS) as upstream:
        settings: dict[str, Any] = {
            "port": 0,
            "control_port": 0,
            "memory_budget_mib": BUDGET_MIB,
            "egress_private": f"127.0.0.1:{upstream.port}",
        }
        with many.up(home, **settings) as node:
            say(f"deploying {APPS} apps that wait, and a probe")
            app = sites.hello(
                home / "hello",
                MANIFEST.format(port=upstream.port),
                ASK.format(port=upstream.port),
            )
            names = [f"wait{number}" for number in range(APPS)]
            for name in ("probe", *names):
                node.cli("deploy", str(app), "--name", name)
                right(node.gateway_port, f"{name}.localhost")
            quiet = _probe_alone(node)
            say(f"{GUESTS:,} requests at once, each waits {WAIT_S:.0f} s")
            before = _memory_mib(node)
            watched = _Watched(node)
            hostnames = [f"{names[number % APPS]}.localhost" for number in range(GUESTS)]
            with (
                probe(node.gateway_port, "probe.localhost") as seen,
                crowd(node.gateway_port) as visitors,
            ):
                load = visitors.ask(hostnames, at_once=GUESTS, path="/wait")
            watched.stop()
            at_once = upstream.most_at_once()
            live = sum(one["app"] != "probe" for one in node.instances())
    return _result(load, seen, quiet, watched.most_mib, before, at_once, live)


def _probe_alone(node: Node) -> Probe:
    with probe(node.gateway_port, "probe.localhost") as seen:
        time.sleep(3)
    return seen


class _Watched:
    """The most memory that the node's processes had, looked at every two seconds."""

    def __init__(self, node: Node) -> None:
        self.most_mib = 0.0
        self._node = node
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(2.0):
            self.most_mib = max(self.most_mib, _memory_mib(self._node))

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


def _memory_mib(node: Node) -> float:
    """Of all processes of the node: shared pages in equal parts."""
    pids = [node.process.pid, *(child.pid for child in node.children())]
    alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    return many.memory_mib(alive)["pss"]


def _result(
    load: Load,
    seen: Probe,
    quiet: Probe,
    most_mib: float,
    before_mib: float,
    at_once: int,
    live: int,
) -> Result:
    answered = len(load.latencies_ms)
    figures = [
        Figure(
            f"right answers of {GUESTS:,} guests that wait {WAIT_S:.0f} s",
            answered,
            "",
            float(GUESTS),
            f"errors: {load.errors or 'none'}",
            at_least=True,
        ),
        Figure("waited at once", at_once, "", float(GUESTS), at_least=True),
        Figure("all answered after", load.seconds, "s"),
        Figure(
            "memory of the node meanwhile, at most",
            most_mib,
            "MiB",
            TARGET_MIB,
            f"proportional, all processes; {before_mib:,.0f} MiB before; at the end "
            f"{live:,} instances",
        ),
        Figure(
            "probe's p99 meanwhile",
            percentile(seen.ms, 99),
            "ms",
            50.0,
            f"{len(seen.ms)} requests, p50 {percentile(seen.ms, 50):.1f} ms, max "
            f"{max(seen.ms):.0f} ms, errors: {', '.join(seen.errors) or 'none'}; alone p99 "
            f"{percentile(quiet.ms, 99):.1f} ms",
        ),
    ]
    return Result(
        "waiting",
        figures,
        raw={"ms": load.latencies_ms, "probe_ms": seen.ms, "quiet_probe_ms": quiet.ms},
    )
