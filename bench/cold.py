"""A whole HTTP request to an app that is scaled to zero, beside what else could start then.

Each round asks isopod and starts every peer, so that a change of the machine's load reaches all.
Both workers have opened each image before: what that costs once per worker is shown apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bench import native, peers
from bench.exchange import admin, right
from bench.figures import Figure, Result, percentile
from isopod.settings import NodeSettings
from tools.node import Node, running

ROUNDS = 8
ASKED = {"Flask hello": 50, "Django admin login": 25, "pandas report": 12}  # a round
P50_MS = {"Flask hello": 3.0, "Django admin login": 15.0}
P99_MS = {"Flask hello": 12.0}
# Long enough for the worker to have put away the instance that ended.
_PAUSE_S = 0.01


@dataclass(slots=True)
class Measured:
    """All of one app, in ms."""

    cold: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)  # of the cold ones
    first: list[float] = field(default_factory=list)  # of a worker with this image
    process: list[float] = field(default_factory=list)
    container: list[float] = field(default_factory=list)
    warm_process: list[float] = field(default_factory=list)


def run(say: Callable[[str], None]) -> Result:
    found = {name: Measured() for name in peers.APPS}
    started: list[float] = []
    loaded: list[float] = []
    remarks: list[str] = []
    with peers.scratch_folder() as scratch, running() as node:
        containers = _have(lambda: peers.Containers(scratch), "container", remarks, say)
        cache = NodeSettings.load().cache_dir / "bench"
        workerd = _have(lambda: peers.Workerd(cache, scratch), "workerd", remarks, say)
        for number, (name, app) in enumerate(peers.APPS.items()):
            say(f"deploying {name}")
            node.cli("deploy", str(app.folder), "--name", f"app{number}")
            found[name].first = open_everywhere(node, f"app{number}", app.path)
            peers.process_ms(app)  # its byte-code and files
        for one_round in range(1, ROUNDS + 1):
            say(f"round {one_round} of {ROUNDS}")
            for number, (name, app) in enumerate(peers.APPS.items()):
                one = found[name]
                for _ in range(ASKED[name]):
                    answer = from_zero(node, f"app{number}", app.path)
                    one.cold.append(answer[0])
                    one.phases.append(answer[1])
                one.process.append(peers.process_ms(app))
                if containers:
                    one.container.append(containers.start_ms(app))
            if workerd:
                started += [workerd.start_ms() for _ in range(3)]
        if workerd:
            with workerd.running() as port:
                loaded = [workerd.loaded_ms(port) for _ in range(300)]
        with native.running(1) as gunicorn:
            found["Flask hello"].warm_process = [
                right(gunicorn.port, "localhost").ms for _ in range(300)
            ]
    kind = containers.kind if containers else ""
    why = f"in place of crun, which said: {containers.why}" if containers and containers.why else ""
    figures = [*_figures(found, kind, why), *_workerd_figures(started, loaded)]
    figures += [Figure(remark, 0, "", note="skipped") for remark in remarks]
    return Result(
        "cold",
        figures,
        raw={
            "apps": {name: _raw(one) for name, one in found.items()},
            "workerd_start_ms": started,
            "workerd_loaded_ms": loaded,
            "container": kind,
        },
        bars=_bars(found, kind, started, loaded),
        bars_unit="p50, ms to the whole first response (logarithmic)",
        bars_log=True,
    )


_Peer = TypeVar("_Peer")


def _have(
    make: Callable[[], _Peer], what: str, remarks: list[str], say: Callable[[str], None]
) -> _Peer | None:
    try:
        return make()
    except peers.Missing as error:
        say(f"SKIPPED {what}: {error}")
        remarks.append(f"no {what} to compare with: {error}")
        return None


def from_zero(node: Node, app: str, path: str) -> tuple[float, dict[str, float]]:
    """Put the app to sleep and ask it; ms, and those of its phases."""
    admin(node.data_dir / "run", {"op": "sleep", "app": app})
    time.sleep(_PAUSE_S)
    answer = right(node.gateway_port, f"{app}.localhost", path)
    timing = answer.server_timing()
    if not timing.get("start"):
        raise RuntimeError(f"{app} was not asleep: {timing}")
    return answer.ms, timing


def open_everywhere(node: Node, app: str, path: str) -> list[float]:
    """Asks until each worker has started the app, and then some; what each first start took."""
    first: dict[int, float] = {}
    workers = len(node.workers())
    for _ in range(200):
        ms, _ = from_zero(node, app, path)
        for instance in node.instances():
            if instance["app"] == app:
                first.setdefault(instance["worker"], ms)
        if len(first) == workers:
            break
    for _ in range(5):
        from_zero(node, app, path)
    return list(first.values())


def _figures(found: dict[str, Measured], kind: str, why: str) -> Iterable[Figure]:
    for name, one in found.items():
        cold = statistics.median(one.cold)
        note = f"{len(one.cold)} requests; " + ", ".join(
            f"{phase} {statistics.median([each.get(phase, 0.0) for each in one.phases]):.2f}"
            for phase in ("start", "guest")
        )
        yield Figure(f"{name}: from zero, p50", cold, "ms", P50_MS.get(name), f"{note} of it")
        yield Figure(f"{name}: from zero, p99", percentile(one.cold, 99), "ms", P99_MS.get(name))
        note = "opens the image and checks its digest"
        yield Figure(f"{name}: a worker's first with the image", max(one.first), "ms", note=note)
        process = statistics.median(one.process)
        hello = name == "Flask hello"
        note = f"{len(one.process)} starts, p99 {percentile(one.process, 99):.0f} ms"
        yield Figure(f"{name}: gunicorn, start to first response, p50", process, "ms", note=note)
        target = 80.0 if hello else None
        ratio = f"{name}: times faster than gunicorn's start"
        yield Figure(ratio, process / cold, "times", target, at_least=True)
        if one.container:
            box = statistics.median(one.container)
            label = f"{name}: {kind}, start to gunicorn's first response, p50"
            note = f"p99 {percentile(one.container, 99):.0f} ms; the machine's network {why}"
            yield Figure(label, box, "ms", note=note.strip())
            target = 20.0 if hello else None
            ratio = f"{name}: times faster than {kind}"
            yield Figure(ratio, box / cold, "times", target, at_least=True)
        if one.warm_process:
            note = "its best mode: a process that always runs"
            warm = statistics.median(one.warm_process)
            yield Figure(f"{name}: gunicorn already running, p50", warm, "ms", note=note)


def _workerd_figures(started: list[float], loaded: list[float]) -> Iterable[Figure]:
    if started:
        note = f"JavaScript hello; p99 {percentile(started, 99):.0f} ms"
        p50 = statistics.median(started)
        yield Figure("workerd, process start to first response, p50", p50, "ms", note=note)
        note = f"its best mode: a process that always runs; p99 {percentile(loaded, 99):.2f} ms"
        p50 = statistics.median(loaded)
        yield Figure("workerd, request to a loaded worker, p50", p50, "ms", note=note)


def _raw(one: Measured) -> dict[str, list[float]]:
    return {
        "cold_ms": one.cold,
        "start_ms": [each.get("start", 0.0) for each in one.phases],
        "guest_ms": [each.get("guest", 0.0) for each in one.phases],
        "process_ms": one.process,
        "container_ms": one.container,
    }


def _bars(
    found: dict[str, Measured], kind: str, started: list[float], loaded: list[float]
) -> dict[str, float]:
    bars = {}
    for name, one in found.items():
        bars[f"isopod from zero: {name}"] = statistics.median(one.cold)
        bars[f"gunicorn, new process: {name}"] = statistics.median(one.process)
        if one.container:
            bars[f"{kind}, new container: {name}"] = statistics.median(one.container)
    if started:
        bars["workerd, new process: JavaScript hello"] = statistics.median(started)
        bars["workerd, loaded: JavaScript hello"] = statistics.median(loaded)
    return bars
