"""What a live app costs in memory, from one to thousands, and what thousands asleep cost.

Live: every app has answered three requests, the third when all of its step were live. Memory is
that of the worker processes, less what they had before. Asleep: all processes of the node.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import many, native, sites
from bench.crowd import Crowd, crowd
from bench.exchange import admin, right
from bench.figures import Figure, Result, percentile
from isopod.state.database import open_state
from tools.node import Node

STEPS = (1, 100, 1000, 2000, 3000)
PROMISED = 2000  # live at once
ASLEEP = (10, 10_000)
GUNICORNS = 10
BUDGET_MIB = 16_384
IMAGE_CACHE_MIB = 512
COLD = 60


def run(say: Callable[[str], None]) -> Result:
    with many.home() as home:
        with many.up(home, port=0, control_port=0) as node:
            say("deploying one app")
            app = sites.hello(home / "hello", many.KEEP)
            node.cli("deploy", str(app), "--name", "hello")
            rate = _deploy_rate(node, say)
        gunicorn = _gunicorns(say)
        asleep = [_asleep(home, count, say) for count in ASLEEP]
        live = _live(home, say)
    return _result(live, asleep, gunicorn, rate)


def _live(home: Path, say: Callable[[str], None]) -> list[dict[str, float]]:
    """One entry a step. Ends early, and says so, where a worker dies."""
    steps: list[dict[str, float]] = []
    with many.up(home, port=0, control_port=0, memory_budget_mib=BUDGET_MIB) as node:
        pids = [worker.pid for worker in node.workers()]
        before, machine = many.memory_mib(pids), many.available_mib()
        with crowd(node.gateway_port) as visitors:
            done = 0
            for count in STEPS:
                say(f"waking apps up to {count:,}")
                began = time.monotonic()
                new = many.hostnames(count, done)
                errors = _visit(visitors, new, say)
                done = count
                instances = node.instances()
                now = many.memory_mib(pids)
                step: dict[str, float] = {
                    "apps": count,
                    "live": len({each["app"] for each in instances}),
                    "instances": len(instances),
                    "errors": errors,
                    "seconds": time.monotonic() - began,
                    "machine": (machine - many.available_mib()) / count,
                }
                live = max(1, len(instances))
                step |= {kind: (now[kind] - before[kind]) / live for kind in now}
                if count >= PROMISED:
                    say(f"asking all {count:,} once more")
                    again = visitors.ask(many.hostnames(count), at_once=16)
                    if again.errors:
                        say(f"wrong answers: {again.errors}")
                    step["again_errors"] = sum(again.errors.values())
                    step["again_right"] = len(again.latencies_ms)
                    step["again_p50_ms"] = statistics.median(again.latencies_ms)
                    step["again_p99_ms"] = percentile(again.latencies_ms, 99)
                    step["started_again"] = len(node.instances()) - len(instances)
                steps.append(step)
                if [worker.pid for worker in node.workers()] != pids:
                    say("a worker died")
                    step["errors"] += 1
                    break
    return steps


def _visit(visitors: Crowd, hostnames: Sequence[str], say: Callable[[str], None]) -> int:
    first = visitors.ask(hostnames, requests=2, at_once=4)
    third = visitors.ask(hostnames, at_once=16)
    for load in (first, third):
        if load.errors:
            say(f"wrong answers: {load.errors}")
    return sum(first.errors.values()) + sum(third.errors.values())


def _asleep(home: Path, count: int, say: Callable[[str], None]) -> dict[str, float]:
    """A node with so many apps of which one has been asked."""
    present = ASLEEP[ASLEEP.index(count) - 1] if count != ASLEEP[0] else 0
    many.copy(home, "hello", many.names(count, present))
    say(f"starting a node with {count:,} apps")
    began = time.monotonic()
    with many.up(home, port=0, control_port=0, image_cache_mib=IMAGE_CACHE_MIB) as node:
        ready = time.monotonic() - began
        name = many.names(count)[-1]
        cold = []
        for _ in range(COLD + 10):
            admin(node.data_dir / "run", {"op": "sleep", "app": name})
            time.sleep(0.01)
            cold.append(right(node.gateway_port, f"{name}.localhost").ms)
        admin(node.data_dir / "run", {"op": "sleep", "app": name})
        pids = [node.process.pid, *(child.pid for child in node.children())]
        memory = many.memory_mib(pids)
        images = sum(
            file.stat().st_blocks * 512
            for file in (node.data_dir / "images").rglob("*")
            if file.is_file()
        )
    return {
        "apps": count,
        "ready_s": ready,
        "first_ms": cold[0],
        "cold_p50_ms": statistics.median(cold[10:]),
        "images_mib": images / 2**20,
        **memory,
    }


def _deploy_rate(node: Node, say: Callable[[str], None]) -> float:
    """Deploys per second of the known package under new names, by the API, one after another."""
    import httpx

    say("deploying the package under other names")
    state = open_state(node.data_dir / "state.db")
    _, version = state.node.live()[0]
    state.close()
    headers = {"Authorization": f"Bearer {node.token}"}
    url = f"http://127.0.0.1:{node.control_port}"
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        began = time.monotonic()
        count = 0
        while count < 200 and time.monotonic() - began < 10:
            body = {
                "package": version.package,
                "name": f"other{count}",
                "folder_name": "hello",
                "source": "",
                "env": {},
            }
            answer = client.post("/v1/deploys", json=body)
            if '"error"' in answer.text or answer.status_code != 200:
                raise RuntimeError(f"deploy answered {answer.status_code}: {answer.text[-300:]}")
            count += 1
        return count / (time.monotonic() - began)


def _gunicorns(say: Callable[[str], None]) -> dict[str, float]:
    """Per gunicorn (a master and one worker), with ten of them running."""
    say(f"starting {GUNICORNS} gunicorns")
    machine = many.available_mib()
    with ExitStack() as stack:
        servers = [stack.enter_context(native.running(1)) for _ in range(GUNICORNS)]
        for server in servers:
            for _ in range(3):
                right(server.port, "localhost")
        workers = many.memory_mib([server.workers[0] for server in servers])
        masters = many.memory_mib([server.master for server in servers])
        used = machine - many.available_mib()
    return {
        "private": workers["private"] / GUNICORNS,
        "pss": (workers["pss"] + masters["pss"]) / GUNICORNS,
        "worker_pss": workers["pss"] / GUNICORNS,
        "rss": workers["rss"] / GUNICORNS,
        "machine": used / GUNICORNS,
    }


def _result(
    live: list[dict[str, float]],
    asleep: list[dict[str, float]],
    gunicorn: dict[str, float],
    rate: float,
) -> Result:
    promised = next((step for step in live if step["apps"] == PROMISED), live[-1])
    few, lots = asleep
    figures = [
        Figure(
            f"private memory per live app, {step['apps']:,} apps",
            step["private"],
            "MiB",
            1.6 if step["apps"] == PROMISED else None,
            f"proportional {step['pss']:.2f} MiB, MemAvailable {step['machine']:.2f} MiB; "
            f"{step['instances']:,.0f} instances, {step['errors']:.0f} errors, "
            f"{step['seconds']:.0f} s",
        )
        for step in live
    ]
    for step in live:
        if "again_right" in step:
            note = (
                f"asked once more: {step['again_errors']:.0f} errors, p50 "
                f"{step['again_p50_ms']:.1f} ms, p99 {step['again_p99_ms']:.1f} ms at 16 at once; "
                f"{step['started_again']:.0f} more instances"
            )
            target = float(PROMISED) if step["apps"] == PROMISED else None
            label = f"apps live at once and answering, of {step['apps']:,}"
            right_ones = min(step["live"], step["again_right"])
            figures.append(Figure(label, right_ones, "", target, note, at_least=True))
    figures += [
        Figure(
            "gunicorn, private memory of its worker process",
            gunicorn["private"],
            "MiB",
            note=f"mean of {GUNICORNS}, each its own app; what it shares with its master is not in",
        ),
        Figure(
            "gunicorn, proportional memory of worker and master",
            gunicorn["pss"],
            "MiB",
            note=f"worker alone {gunicorn['worker_pss']:.1f}, its Rss {gunicorn['rss']:.1f}; "
            f"MemAvailable {gunicorn['machine']:.1f} MiB",
        ),
        Figure(
            "times less private memory than a gunicorn worker",
            gunicorn["private"] / promised["private"],
            "times",
            20.0,
            at_least=True,
        ),
        Figure(
            "times less proportional memory than a gunicorn (worker and master)",
            gunicorn["pss"] / promised["pss"],
            "times",
            20.0,
            "the like-for-like figure: what one more app costs, shared pages in equal parts",
            at_least=True,
        ),
        Figure(
            f"{PROMISED:,} gunicorns would need, extrapolated from {GUNICORNS}",
            gunicorn["pss"] * PROMISED / 1024,
            "GiB",
        ),
        Figure(
            f"resident memory, {lots['apps']:,} asleep less {few['apps']} asleep",
            lots["rss"] - few["rss"],
            "MiB",
            64.0,
            f"all processes: {few['rss']:.0f} and {lots['rss']:.0f} MiB; proportional "
            f"{lots['pss'] - few['pss']:.0f} MiB more",
        ),
        Figure(
            f"`isopod up` to ready, {lots['apps']:,} apps",
            lots["ready_s"],
            "s",
            5.0,
            f"{few['ready_s']:.2f} s with {few['apps']}",
        ),
        Figure(
            f"cold start of the last of {lots['apps']:,} / of {few['apps']}, p50",
            lots["cold_p50_ms"] / few["cold_p50_ms"],
            "times",
            1.25,
            f"{lots['cold_p50_ms']:.2f} and {few['cold_p50_ms']:.2f} ms; 1.25 allows for noise",
        ),
        Figure(
            f"image cache with {lots['apps']:,} apps",
            lots["images_mib"],
            "MiB",
            float(IMAGE_CACHE_MIB),
            "one package: one image",
        ),
        Figure("deploys of a known package under new names", rate, "deploys/s"),
    ]
    lines = {
        "private": [(step["apps"], step["private"]) for step in live],
        "proportional": [(step["apps"], step["pss"]) for step in live],
        "MemAvailable": [(step["apps"], step["machine"]) for step in live],
    }
    bars = {
        f"isopod, one of {promised['apps']:,.0f} live Flask apps, private": promised["private"],
        f"isopod, one of {promised['apps']:,.0f} live Flask apps, proportional": promised["pss"],
        "gunicorn worker, private": gunicorn["private"],
        "gunicorn worker and master, proportional": gunicorn["pss"],
    }
    return Result(
        "density",
        figures,
        raw={"live": live, "asleep": asleep, "gunicorn": gunicorn},
        bars=bars,
        bars_unit="MiB",
        lines={name: [point for point in points if point[0] > 1] for name, points in lines.items()},
        lines_units=("live Flask apps", "MiB per live instance"),
    )
