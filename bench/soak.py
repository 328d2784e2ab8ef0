"""`python -m bench.soak --minutes 30`: mixed load for long, to see errors and growth.

Cold and warm requests to more apps than the memory budget holds, clients that go away, a guest
that is killed by its deadline, an app with an instance per request, new versions deployed every
few seconds; meanwhile the memory and the open file descriptors of each worker. Rss counts a
shared page of an image once for each instance that maps it; "written" memory is what no file
backs. Growth is the median of the last fifth against that of the second: the first fills caches.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import figures, many, sites
from bench.exchange import admin
from bench.figures import Figure, Result, percentile
from tools import processes
from tools.node import ROOT, Node

APPS = 120
BUDGET_MIB = 160
SAMPLE_S = 1.0
DEPLOY_EVERY_S = 15.0
# What medians may differ by without a leak: the allocator's and the caches' play.
RSS_PLAY_MIB = 8.0
FD_PLAY = 12.0

_SLOW = """

@app.get("/slow")
def slow():
    import time

    time.sleep(0.3)
    return "slow\\n"


@app.get("/stream")
def stream():
    import time

    def pieces():
        for number in range(20):
            time.sleep(0.02)
            yield f"{number}\\n"

    return pieces()
"""


def run(minutes: float, pace: float) -> Result:
    with many.home() as home:
        app = sites.hello(home / "hello", "[scaling]\nidle_s = 5\n", _SLOW)
        runaway = sites.hello(home / "runaway", "[limits]\ndeadline_ms = 2000\n")
        alone = sites.hello(home / "alone", '[isolation]\nmode = "request"\n')
        with many.up(home, port=0, control_port=0) as node:
            for name, folder in [
                *(("hello", app), ("changing", app)),
                *(("runaway", runaway), ("alone", alone)),
            ]:
                _say(f"deploying {name}")
                node.cli("deploy", str(folder), "--name", name)
        many.copy(home, "hello", many.names(APPS))
        with many.up(home, port=0, control_port=0, memory_budget_mib=BUDGET_MIB) as node:
            return _soak(node, app, minutes, pace)


def _soak(node: Node, app: Path, minutes: float, pace: float) -> Result:
    pids = {f"worker {number}": one.pid for number, one in enumerate(node.workers())}
    rss: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
    written: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
    fds: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
    live: list[int] = []
    complaints: list[str] = []
    versions = 0
    words = [sys.executable, "-m", "bench.mixed", str(node.gateway_port)]
    load = subprocess.Popen(
        [*words, str(pace), ",".join(many.names(APPS))],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    deploy: subprocess.Popen[str] | None = None
    began = time.monotonic()
    due_deploy, due_word = began + 2, began
    source = (app / "app.py").read_text()
    try:
        while (now := time.monotonic() - began) < minutes * 60:
            for name, pid in pids.items():
                try:
                    memory = processes.memory_kib(pid)
                    rss[name].append((now / 60, memory["Rss"] / 1024))
                    written[name].append((now / 60, memory["Anonymous"] / 1024))
                    fds[name].append((now / 60, len(list(Path(f"/proc/{pid}/fd").iterdir()))))
                except OSError:
                    complaints.append(f"{name} (pid {pid}) died after {now:.0f} s")
            if any(text.startswith("worker") for text in complaints):
                break
            live.append(len(node.instances()))
            if deploy is not None and deploy.poll() is not None:
                _, err = deploy.communicate()
                if deploy.returncode:
                    complaints.append(f"a deploy failed: {err[-300:]}")
                versions, deploy = versions + 1, None
            if deploy is None and time.monotonic() > due_deploy:
                due_deploy = time.monotonic() + DEPLOY_EVERY_S
                (app / "app.py").write_text(f"{source}\n# version {versions}\n")
                deploy = node.popen("deploy", str(app), "--name", "changing")
            if load.poll() is not None:
                complaints.append("the load generator ended")
                break
            if time.monotonic() > due_word:
                due_word += 30
                size = " ".join(f"{points[-1][1]:.0f}" for points in rss.values())
                _say(f"{now:6.0f} s  {live[-1]} instances, workers' Rss {size} MiB")
            time.sleep(SAMPLE_S)
        out, _ = load.communicate(timeout=90)
        seen = json.loads(out)
        if deploy is not None:
            deploy.communicate(timeout=60)
        statuses = admin(node.data_dir / "run", {"op": "status"})
    finally:
        load.kill()
        load.wait()
        if deploy is not None:
            deploy.kill()
            deploy.wait()
    return _result(minutes, rss, written, fds, live, complaints, versions, seen, statuses)


def _result(
    minutes: float,
    rss: dict[str, list[tuple[float, float]]],
    written: dict[str, list[tuple[float, float]]],
    fds: dict[str, list[tuple[float, float]]],
    live: list[int],
    complaints: list[str],
    versions: int,
    seen: dict[str, Any],
    statuses: list[dict[str, Any]],
) -> Result:
    errors = {**seen["errors"], **dict.fromkeys(complaints, 1)}
    counts = seen["counts"]
    cold_starts = sum(one["cold_starts"] for each in statuses for one in each["apps"].values())
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    found = [
        Figure("errors", sum(errors.values()), "", 0.0, "; ".join(errors)[:500] or "none"),
        Figure("turns of the load", sum(counts.values()), "", note=said),
        Figure("versions deployed meanwhile", versions, ""),
        Figure("instances started by the pools there are now", cold_starts, ""),
        Figure("live instances, median", statistics.median(live), "", note=f"of {APPS} apps"),
        Figure("requests to any app, p50", percentile(seen["cold_ms"] or [0], 50), "ms"),
        Figure("requests to any app, p99", percentile(seen["cold_ms"] or [0], 99), "ms"),
    ]
    for what, unit, series, play in [
        ("Rss", "MiB", rss, RSS_PLAY_MIB),
        ("written memory", "MiB", written, RSS_PLAY_MIB),
        ("open files", "", fds, FD_PLAY),
    ]:
        for name, points in series.items():
            second, last = _fifths([value for _, value in points])
            note = f"{second:.1f} in the second fifth, {last:.1f} in the last"
            found.append(Figure(f"growth of {what}, {name}", last - second, unit, play, note))
    lines = {f"Rss of {name}, MiB": points for name, points in rss.items()}
    lines |= {f"written memory of {name}, MiB": points for name, points in written.items()}
    lines |= {f"open files of {name}": points for name, points in fds.items()}
    return Result(
        "soak",
        found,
        raw={"minutes": minutes, "errors": errors, "counts": counts, "live": live},
        lines=lines,
        lines_units=("minutes", "MiB, or files"),
    )


def _fifths(values: list[float]) -> tuple[float, float]:
    if len(values) < 10:
        return 0.0, 0.0
    fifth = len(values) // 5
    return statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description="mixed load for long")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pace", type=float, default=1.0, help="0.3: three times as slow")
    options = parser.parse_args()
    minutes = options.minutes
    before, began = os.getloadavg()[0], time.monotonic()
    result = run(minutes, options.pace)
    result.load.extend([before, os.getloadavg()[0]])
    figures.save(result, time.monotonic() - began)
    for figure in result.figures:
        verdict = figure.verdict.replace("*", "")
        print(f"  {figure.name:48} {figure.shown:>14}  {verdict}  {figure.note}".rstrip())
    missed = [figure.name for figure in result.figures if "not reached" in figure.verdict]
    verdict = f"NOT SOUND: {', '.join(missed)}" if missed else "sound: no error, no growth"
    print(f"verdict after {minutes:g} minutes: {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
