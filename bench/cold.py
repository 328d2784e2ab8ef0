"""From no instance to the first response, beside starting gunicorn until it answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench import native
from bench.figures import Figure, Result
from tools.http_calls import Caller
from tools.node import running

TIMES = 8


def run(say: Callable[[str], None]) -> Result:
    """The two alternate, so that a change of the machine's load reaches both."""
    ours, theirs, timings = [], [], []
    with running() as node:
        say("deploying one app")
        node.cli("deploy", str(native.APP), "--name", "hello")
        for number in range(1, TIMES + 1):
            say(f"round {number} of {TIMES}")
            node.cli("sleep", "hello")
            with Caller(node.gateway_port, "hello") as app:
                answer = app.call()
            if answer.status != 200:
                raise RuntimeError(f"hello answered {answer.status} {answer.text[:200]!r}")
            ours.append(answer.ms)
            timings.append(answer.headers.get("Server-Timing", ""))
            theirs.append(_gunicorn_ms())
    figures = [
        Figure("isopod, zero instances to first response", statistics.median(ours), "ms"),
        Figure("gunicorn, start to first response", statistics.median(theirs), "ms"),
        Figure("isopod / gunicorn", statistics.median(ours) / statistics.median(theirs), "times"),
    ]
    raw = {"isopod_ms": ours, "gunicorn_ms": theirs, "server_timing": timings}
    bars = {"isopod, plain boot": figures[0].value, "gunicorn, new process": figures[1].value}
    return Result("cold", figures, raw, bars, "ms to the first response")


def _gunicorn_ms() -> float:
    port = native.free_port()
    began = time.perf_counter()
    process = native.start(port, 1)
    try:
        native.first_response(port)
        return (time.perf_counter() - began) * 1000
    finally:
        native.stop(process)
