"""A thousand requests at once to apps that are asleep, while a probe asks another app.

First to a thousand apps, one each; then all to one app. The requests come from one process, the
probe's from another: both share the machine's cores with the node.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from bench import many, sites
from bench.crowd import crowd
from bench.exchange import admin, right
from bench.figures import Figure, Result, percentile
from bench.load import Load
from bench.probe import Probe, probe
from tools.node import Node

APPS = 1000
BUDGET_MIB = 16_384


def run(say: Callable[[str], None]) -> Result:
    with many.home() as home:
        with many.up(home, port=0, control_port=0) as node:
            say("deploying two apps")
            app = sites.hello(home / "hello", many.KEEP)
            node.cli("deploy", str(app), "--name", "hello")
            node.cli("deploy", str(app), "--name", "probe")
        many.copy(home, "hello", many.names(APPS))
        settings: dict[str, Any] = {"port": 0, "control_port": 0, "memory_budget_mib": BUDGET_MIB}
        with many.up(home, **settings) as node:
            for _ in range(20):  # each worker has opened the image, and has the probe's app
                right(node.gateway_port, "probe.localhost")
                right(node.gateway_port, "hello.localhost")
            admin(node.data_dir / "run", {"op": "sleep", "app": "hello"})
            say("the probe alone")
            _, quiet = _burst(node, [])
            say(f"1 request to each of {APPS:,} apps")
            apps, apps_probe = _burst(node, many.hostnames(APPS))
            live = len({each["app"] for each in node.instances()})
            say(f"{APPS:,} requests to one app")
            one, one_probe = _burst(node, ["hello.localhost"] * APPS)
            instances = sum(each["app"] == "hello" for each in node.instances())
    figures = [
        *_figures(f"{APPS:,} apps from zero", apps, apps_probe, 10.0),
        Figure("apps live afterwards", live, "", float(APPS), at_least=True),
        *_figures(f"{APPS:,} requests to one app from zero", one, one_probe, 10.0),
        Figure("its instances afterwards", instances, ""),
        Figure("probe with nothing else, p99", percentile(quiet.ms, 99), "ms"),
    ]
    return Result(
        "burst",
        figures,
        raw={
            "apps": {"seconds": apps.seconds, "ms": apps.latencies_ms, "probe_ms": apps_probe.ms},
            "one": {"seconds": one.seconds, "ms": one.latencies_ms, "probe_ms": one_probe.ms},
            "quiet_probe_ms": quiet.ms,
        },
        lines={
            f"{APPS:,} apps, one request each": _answered(apps),
            f"{APPS:,} requests to one app": _answered(one),
        },
        lines_units=("seconds since the requests were sent", "answered"),
    )


def _burst(node: Node, hostnames: list[str]) -> tuple[Load, Probe]:
    with probe(node.gateway_port, "probe.localhost") as seen:
        if hostnames:
            with crowd(node.gateway_port) as visitors:
                return visitors.ask(hostnames, at_once=len(hostnames)), seen
        for _ in range(300):
            right(node.gateway_port, "hello.localhost")
        admin(node.data_dir / "run", {"op": "sleep", "app": "hello"})
    return Load(1.0, [], {}), seen


def _figures(what: str, load: Load, seen: Probe, target_s: float) -> list[Figure]:
    answered = len(load.latencies_ms)
    note = f"{answered:,} right answers; errors: {load.errors or 'none'}"
    p50 = statistics.median(load.latencies_ms) if load.latencies_ms else 0.0
    return [
        Figure(f"{what}: all answered after", load.seconds, "s", target_s, note),
        Figure(f"{what}: right answers", answered, "", float(APPS), at_least=True),
        Figure(f"{what}: p50 of the requests", p50, "ms"),
        Figure(
            f"{what}: probe's p99 meanwhile",
            percentile(seen.ms, 99),
            "ms",
            250.0,
            f"{len(seen.ms)} requests, p50 {statistics.median(seen.ms):.1f} ms, "
            f"max {max(seen.ms):.0f} ms, errors: {', '.join(seen.errors) or 'none'}",
        ),
    ]


def _answered(load: Load) -> list[tuple[float, float]]:
    return [(ms / 1e3, number) for number, ms in enumerate(sorted(load.latencies_ms), 1)]
