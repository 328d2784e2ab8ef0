"""A hello of Rack: woken by a request, warm, and what a live instance of it costs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.exchange import admin, right
from bench.figures import Figure, Result, percentile
from bench.warm import Series
from isopod import runtimes
from isopod.settings import NodeSettings
from tools import processes
from tools.node import Node, running

COLD = 200
WARM = 3000
APPS = 10
_APP = 'run ->(env) { [200, { "content-type" => "text/plain" }, ["Hello from Rack\\n"]] }\n'
# Long enough for the worker to have put away the instance that ended.
_PAUSE_S = 0.01


def run(say: Callable[[str], None]) -> Result:
    say("preparing Ruby")
    runtimes.prepare("ruby", NodeSettings.load().cache_dir, lambda *_: None)
    with (
        tempfile.TemporaryDirectory(prefix="isopod-ruby-") as folder,
        running(workers=1) as node,
    ):
        (Path(folder) / "config.ru").write_text(_APP)
        for number in range(APPS):
            say(f"deploying app {number + 1} of {APPS}")
            node.cli("deploy", folder, "--name", f"rack{number}")
        _cold(node)  # the worker's first look at the image
        say(f"{COLD} cold starts")
        cold = [_cold(node) for _ in range(COLD)]
        say("warm requests")
        (worker,) = [one.pid for one in node.workers()]
        warm = Series("warm", node.gateway_port, "rack0.localhost", [worker], 1, True)
        warm.round(WARM // 3)
        warm.forget()
        warm.round(WARM)
        for number in range(APPS):
            admin(node.data_dir / "run", {"op": "sleep", "app": f"rack{number}"})
        empty = processes.private_mib(worker)
        for number in range(APPS):
            right(node.gateway_port, f"rack{number}.localhost")
        private = (processes.private_mib(worker) - empty) / APPS
    figures = [
        Figure("Rack hello, scaled to zero, p50", statistics.median(cold), "ms", 5.0),
        Figure("Rack hello, scaled to zero, p99", percentile(cold, 99), "ms"),
        Figure("Rack hello, warm, CPU of the worker", warm.cpu, "us"),
        Figure("private memory per live instance", private * 1024, "KiB"),
    ]
    return Result("ruby", figures, raw={"cold_ms": cold, "warm_ms": warm.latencies_ms})


def _cold(node: Node) -> float:
    admin(node.data_dir / "run", {"op": "sleep", "app": "rack0"})
    time.sleep(_PAUSE_S)
    answer = right(node.gateway_port, "rack0.localhost")
    if not answer.server_timing().get("start"):
        raise RuntimeError("it was not asleep")
    return answer.ms
