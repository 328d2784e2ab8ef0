"""Asks one app at a steady pace from a process of its own, to see whether others starve it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.exchange import ask
from tools.node import ROOT


class Probe:
    """Its latencies in ms; filled when the probe has ended."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.errors: list[str] = []


@contextmanager
def probe(port: int, hostname: str, every_s: float = 0.01) -> Iterator[Probe]:
    """While this lasts, one request every `every_s` (the next waits for the answer)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.probe", str(port), hostname, str(every_s)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    found = Probe()
    try:
        assert process.stdout is not None
        process.stdout.readline()  # its first answer was there
        yield found
        out, _ = process.communicate(timeout=60)
        result = json.loads(out)
        found.ms, found.errors = result["ms"], result["errors"]
    finally:
        process.kill()
        process.wait()


def _run(port: int, hostname: str, every_s: float) -> None:
    latencies: list[float] = []
    errors: list[str] = []
    ask(port, hostname)
    print("ready", flush=True)
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        due = time.monotonic() + every_s
        began = time.perf_counter()
        try:
            answer = ask(port, hostname)
            if answer.status != 200:
                errors.append(str(answer.status))
        except OSError as error:
            errors.append(type(error).__name__)
        latencies.append((time.perf_counter() - began) * 1e3)
    print(json.dumps({"ms": latencies, "errors": errors}), flush=True)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
