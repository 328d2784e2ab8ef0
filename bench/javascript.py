"""JavaScript scaled to zero, warm, and ten thousand live apps, beside workerd.

The same hello is in both: cold as a whole HTTP request (workerd: from starting its process), warm
as CPU per request on kept connections, and live as private memory per app at rest after
three requests.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import many, workerds
from bench.crowd import crowd
from bench.exchange import admin, right
from bench.figures import Figure, Result, percentile
from bench.peers import Missing
from bench.warm import Series
from isopod import runtimes
from isopod.engine.folding import AFTER_S
from isopod.settings import NodeSettings

COLD = 200
STARTS = 10
ROUNDS, REQUESTS = 4, 2500
CONNECTIONS = 16
_REST_S = 120  # at most, for all of a step
STEPS = (1000, 5000, 10_000)
PEERS = (100, 1000, 10_000)  # workers in one workerd
# So many instances are what one worker may hold by 20,000 open files.
WORKERS = 10
BUDGET_MIB = 16_384
_PAUSE_S = 0.01
_HELD_BACK_MIB = 2048.0  # of the machine, when workerd takes what it needs


def run(say: Callable[[str], None]) -> Result:
    say("preparing the runtime")
    runtimes.prepare("javascript", NodeSettings.load().cache_dir, lambda *_: None)
    with many.home() as home:
        folder = home / "hello"
        folder.mkdir()
        (folder / "worker.js").write_text(workerds.HELLO)
        (folder / "isopod.toml").write_text(many.KEEP)
        with many.up(home, port=0, control_port=0) as node:
            node.cli("deploy", str(folder), "--name", "hello")
            cold, phases = _cold(node.data_dir / "run", node.gateway_port, say)
        peer: dict[str, Any] = {}
        try:
            peer = _workerd_alone(home, say)
            warm = _warm(home, say)
            peer["many"] = _workerd_many(home, say)
        except Missing as error:
            say(f"SKIPPED workerd: {error}")
            warm = _warm(home, say, peer=False)
        live = _live(home, say)
    return _result(cold, phases, warm, live, peer)


def _cold(
    run_dir: Path, port: int, say: Callable[[str], None]
) -> tuple[list[float], list[dict[str, float]]]:
    say(f"{COLD} cold requests")
    found, phases = [], []
    for _ in range(COLD + 20):
        admin(run_dir, {"op": "sleep", "app": "hello"})
        time.sleep(_PAUSE_S)
        answer = right(port, "hello.localhost")
        timing = answer.server_timing()
        if not timing.get("start"):
            raise RuntimeError(f"it was not asleep: {timing}")
        found.append(answer.ms)
        phases.append(timing)
    return found[20:], phases[20:]


def _workerd_alone(home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"starting workerd {STARTS} times")
    started = []
    for number in range(STARTS):
        with workerds.running(home / f"workerd-{number}", ["hello"]) as one:
            started.append(one.ready_s * 1e3)
    return {"start_ms": started}


def _warm(home: Path, say: Callable[[str], None], *, peer: bool = True) -> dict[str, Series]:
    say("warm requests")
    found: dict[str, Series] = {}

    def rounds() -> None:
        for one in found.values():
            one.round(500)
            one.forget()
        for _ in range(ROUNDS):
            for one in found.values():
                one.round(REQUESTS)

    with many.up(home, port=0, control_port=0) as node:
        pids = [worker.pid for worker in node.workers()]

        def add(name: str, port: int, ids: list[int]) -> None:
            for connections in (1, CONNECTIONS):
                key = f"{name}, {connections}"
                found[key] = Series(key, port, "hello.localhost", ids, connections, True)

        add("isopod", node.gateway_port, pids)
        if not peer:
            rounds()
            return found
        with workerds.running(home / "workerd-warm", ["hello"]) as one:
            add("workerd", one.port, [one.pid])
            rounds()
    return found


def _live(home: Path, say: Callable[[str], None]) -> list[dict[str, float]]:
    many.copy(home, "hello", many.names(STEPS[-1]))
    steps = []
    with many.up(
        home, workers=WORKERS, port=0, control_port=0, memory_budget_mib=BUDGET_MIB
    ) as node:
        pids = [worker.pid for worker in node.workers()]
        before, machine = many.memory_mib(pids), many.available_mib()
        done = 0
        with crowd(node.gateway_port) as visitors:
            for count in STEPS:
                say(f"waking apps up to {count:,}")
                new = many.hostnames(count, done)
                done = count
                first = visitors.ask(new, requests=2, at_once=4)
                third = visitors.ask(new, at_once=16)
                ran = many.memory_mib(pids)["private"]
                now = _rested(pids)
                instances = node.instances()
                live = len({each["app"] for each in instances})
                step = {
                    "apps": float(count),
                    "live": float(live),
                    "instances": float(len(instances)),
                    "errors": float(sum(first.errors.values()) + sum(third.errors.values())),
                    "machine_kib": (machine - many.available_mib()) * 1024 / max(1, live),
                    "available_mib": many.available_mib(),
                }
                step["ran_kib"] = (ran - before["private"]) * 1024 / max(1, len(instances))
                for kind in now:
                    step[f"{kind}_kib"] = (now[kind] - before[kind]) * 1024 / max(1, len(instances))
                steps.append(step)
                if first.errors or third.errors:
                    say(f"wrong answers: {first.errors} {third.errors}")
            say(f"asking all {done:,} once more")
            again = visitors.ask(many.hostnames(done), at_once=16)
            steps[-1] |= {
                "again": float(len(again.latencies_ms)),
                "again_errors": float(sum(again.errors.values())),
                "again_p50_ms": statistics.median(again.latencies_ms),
                "again_p99_ms": percentile(again.latencies_ms, 99),
            }
    return steps


def _rested(pids: list[int]) -> dict[str, float]:
    """Memory when the instances have had nothing to do for a while, and no more is given back."""
    now = many.memory_mib(pids)
    since, end = time.monotonic(), time.monotonic() + _REST_S
    while time.monotonic() < min(end, since + 2 * AFTER_S):
        time.sleep(1)
        later = many.memory_mib(pids)
        if later["private"] < now["private"] * 0.99:
            now, since = later, time.monotonic()
    return now


def _workerd_many(home: Path, say: Callable[[str], None]) -> list[dict[str, float]]:
    """As many as it manages: ends before the machine's memory would."""
    steps: list[dict[str, float]] = []
    for count in PEERS:
        if steps and (needed := steps[-1]["kib"] * count / 1024) > (
            many.available_mib() - _HELD_BACK_MIB
        ):
            say(f"not {count:,} in workerd: they would need {needed:,.0f} MiB")
            break
        say(f"{count:,} workers in one workerd")
        names = many.names(count)
        machine = many.available_mib()
        try:
            with workerds.running(home / f"workerd-of-{count}", names) as one:
                for _ in range(3):
                    _ask_all(one.port, names)
                private = many.memory_mib([one.pid])["private"]
                used = machine - many.available_mib()
        except (RuntimeError, OSError) as error:
            say(f"workerd does not manage {count:,}: {error}")
            steps.append({"apps": count, "failed": 1.0, "kib": 0.0})
            break
        steps.append(
            {
                "apps": count,
                "kib": private * 1024 / count,
                "machine_kib": used * 1024 / count,
                "ready_s": one.ready_s,
            }
        )
    return steps


def _ask_all(port: int, names: Sequence[str]) -> None:
    for name in names:
        right(port, f"{name}.localhost")


def _result(
    cold: list[float],
    phases: list[dict[str, float]],
    warm: dict[str, Series],
    live: list[dict[str, float]],
    peer: dict[str, Any],
) -> Result:
    most = live[-1]
    mean = ", ".join(
        f"{name} {statistics.median(one.get(name, 0.0) for one in phases):.2f}"
        for name in phases[0]
    )
    figures = [
        Figure("cold start over HTTP, p50", statistics.median(cold), "ms", 2.5, f"medians: {mean}"),
        Figure("cold start over HTTP, p99", percentile(cold, 99), "ms"),
    ]
    for name, one in warm.items():
        target = 300.0 if name == f"isopod, {CONNECTIONS}" else None
        figures.append(Figure(f"warm CPU per request: {name} connections", one.cpu, "us", target))
        figures.append(Figure(f"warm p50: {name} connections", one.percentile_ms(50), "ms"))
        rate = statistics.median(one.rate)
        figures.append(Figure(f"warm throughput: {name} connections", rate, "requests/s"))
    for step in live:
        note = f"at rest; {step['ran_kib']:.0f} KiB after three requests; {step['instances']:,.0f} "
        note += (
            f"instances, {step['errors']:.0f} errors; MemAvailable {step['machine_kib']:.0f} KiB"
        )
        figures.append(
            Figure(
                f"private memory per live instance, {step['apps']:,.0f} apps",
                step["private_kib"],
                "KiB",
                400.0,
                note,
            )
        )
    figures.append(
        Figure(
            "apps live at once and answering",
            min(most["live"], most["again"]),
            "",
            float(STEPS[-1]),
            f"asked once more: {most['again_errors']:.0f} errors, p50 {most['again_p50_ms']:.1f} "
            f"ms, p99 {most['again_p99_ms']:.1f} ms at 16 at once; {WORKERS} workers",
            at_least=True,
        )
    )
    bars = {"isopod, cold request": statistics.median(cold)}
    if peer:
        started = statistics.median(peer["start_ms"])
        figures.append(Figure("workerd, process start to first response, p50", started, "ms"))
        bars["workerd, process start to first response"] = started
    for step in peer.get("many", []):
        label = f"workerd, private memory per worker, {step['apps']:,.0f} in one process"
        if step.get("failed"):
            figures.append(Figure(label, 0, "", note="it did not manage so many"))
            continue
        note = f"MemAvailable {step['machine_kib']:,.0f} KiB; ready in {step['ready_s']:.1f} s"
        figures.append(Figure(label, step["kib"], "KiB", note=note))
    return Result(
        "javascript",
        figures,
        raw={"cold_ms": cold, "live": live, "workerd": peer},
        bars=bars,
        bars_unit="p50, ms to the whole first response",
    )
