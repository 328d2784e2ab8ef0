"""What one more worker process costs, what an instance costs, and that code is shared."""

from __future__ import annotations

from collections.abc import Callable

from bench import native
from bench.figures import Figure, Result
from bench.load import Job, generate
from tools import processes
from tools.node import Node, running

APPS = 4


def run(say: Callable[[str], None]) -> Result:
    """Two workers, so that pages can be shared; the figures are of the larger one."""
    say("starting a node with 2 workers")
    with running(workers=2) as node:
        pids = [worker.pid for worker in node.workers()]
        empty = [processes.private_mib(pid) for pid in pids]
        for number in range(1, APPS + 1):
            say(f"deploying app {number} of {APPS}")
            node.cli("deploy", str(native.APP), "--name", f"hello{number}")
        say("waking them")
        for number in range(1, APPS + 1):
            _call(node, f"hello{number}")
        instances = _instances(node)
        warm = {pid: processes.private_mib(pid) for pid in pids}
        code = {pid: processes.mapping_kib(pid, ".cwasm") for pid in pids}
        with native.running(1) as gunicorn:
            peer = processes.private_mib(gunicorn.workers[0])
    base = max(empty)
    growth = sum(warm.values()) - sum(empty)
    total = max(1, sum(instances.values()))
    rss = sum(found.get("Rss", 0) for found in code.values()) / 1024
    pss = sum(found.get("Pss", 0) for found in code.values()) / 1024
    figures = [
        Figure("private memory of a worker, no instance", base, "MiB", 45.0),
        Figure(
            "private memory of a worker, with its warm instances",
            max(warm.values()),
            "MiB",
            note=f"{max(instances.values(), default=0)} warm Flask instances in it",
        ),
        Figure("private memory per warm Flask instance", growth / total, "MiB"),
        Figure("private memory of gunicorn's worker", peer, "MiB", note="one app, one worker"),
        Figure("machine code mapped, sum of both workers' Rss", rss, "MiB"),
        Figure("the same pages, sum of both workers' Pss", pss, "MiB", note="shared if below Rss"),
        Figure(
            "machine code that is private to a worker",
            max(
                (
                    found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)
                    for found in code.values()
                ),
                default=0,
            )
            / 1024,
            "MiB",
            note="pages that only this worker has touched, or changed",
        ),
    ]
    raw = {
        "private_mib_empty": empty,
        "private_mib_warm": warm,
        "instances_by_worker_pid": instances,
        "cwasm_mapping_kib_by_pid": code,
    }
    bars = {
        "isopod worker, no instance": base,
        "one more warm Flask instance": growth / total,
        "gunicorn worker, one Flask app": peer,
    }
    return Result("memory", figures, raw, bars, "private MiB")


def _call(node: Node, app: str) -> None:
    hostname = f"{app}.localhost:{node.gateway_port}"
    for _ in range(40):  # each on a connection of its own, so that both workers get some
        load = generate(Job(node.gateway_port, hostname, 10, 2, False))
        if load.errors:
            raise RuntimeError(f"{app}: wrong answers: {load.errors}")
        found = [each for each in node.instances() if each["app"] == app]
        if len({each["worker"] for each in found}) == 2:
            return


def _instances(node: Node) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in node.instances():
        counts[each["pid"]] = counts.get(each["pid"], 0) + 1
    return counts
