"""Whether what is billed is what was used: a mixed load of a minute, and both sides of the sum.

One side is the ledger: the guest CPU of every request and start that was recorded. The other is the
CPU of the worker processes as the kernel counts it, less what is ours:

- every thread that runs no guest (the HTTP server's, the ticks', the one that writes the spool), by
  the kernel;
- of the loop's thread, what is outside of the guests' slices: its CPU by the kernel, less the sum
  that the scheduler keeps of all slices of all instances that ever ran.

Written down, the kernel's numbers cancel out: what the ledger has is compared with the scheduler's
sum. That knows nothing of requests, starts, records, spools and the ledger: what leaks on this
long way (a guest that was cancelled, that failed to start, that ended while idle, work after a
response, a batch that was lost or counted twice) is a difference between the sides.

That the slices themselves are measured rightly is another question, and the second figure asks it
without our word for anything: while guests do nothing but compute, nearly all of the loop thread's
CPU is theirs, so what is billed must come close to what the kernel says of that thread. What it
lacks is our own work between the slices.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, Result
from tools import processes
from tools.http_calls import Caller
from tools.node import Node, running

MIXED_S = 60.0
COMPUTE_S = 10.0
SLEEP_S = 10
_APP = """
import time
from flask import Flask, Response, request

app = Flask(__name__)

def compute(millions):
    for _ in range(int(millions * 1e6)):
        pass

@app.get("/")
def hello():
    return "Hello from Flask!"

@app.get("/compute/<millions>")
def computing(millions):
    compute(float(millions))
    return "done"

@app.get("/sleep/<seconds>")
def sleeping(seconds):
    time.sleep(float(seconds))
    return "done"

@app.get("/stream")
def stream():
    def pieces():
        for _ in range(20):
            compute(0.02)
            yield "x" * 10000
    return Response(pieces())

@app.get("/fails")
def fails():
    compute(0.1)
    raise RuntimeError("no")

@app.get("/late")
def late():
    response = Response("early")
    response.call_on_close(lambda: compute(0.2))
    return response
"""


@dataclass(frozen=True, slots=True)
class Used:
    """Nanoseconds that the workers used since their start."""

    process: int
    loop: int  # of the threads that run guests
    slices: int  # of those, by their schedulers

    def __sub__(self, before: Used) -> Used:
        return Used(
            self.process - before.process, self.loop - before.loop, self.slices - before.slices
        )

    @property
    def host_share(self) -> int:
        return (self.process - self.loop) + (self.loop - self.slices)


def run(say: Callable[[str], None]) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="isopod-"))
    try:
        with running(workers=os.cpu_count() or 1) as node:
            return _run(node, folder, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(node: Node, folder: Path, say: Callable[[str], None]) -> Result:
    say("deploying")
    for name, manifest in (
        ("mixed", ""),
        ("short", "[scaling]\nidle_s = 0.2\n"),
        ("alone", '[isolation]\nmode = "request"\n'),
        ("strict", "[limits]\ndeadline_ms = 300\ncpu_ms_per_request = 100\n"),
        ("plain", "[startup]\nsnapshot = false\n[scaling]\nidle_s = 0.5\n"),
    ):
        _deploy(node, folder / name, name, _APP, manifest)

    say(f"mixed load, {MIXED_S:.0f} s")
    before, billed_before = _used(node), _billed(node)
    counts = _load(node, _mixed, MIXED_S)
    mixed = _used(node) - before
    billed = _settled(node) - billed_before
    due = mixed.process - mixed.host_share

    say(f"computing, {COMPUTE_S:.0f} s")
    before, billed_before = _used(node), _billed(node)
    _load(node, _computing, COMPUTE_S)
    computing = _used(node) - before
    computed = _settled(node) - billed_before

    say(f"sleeping, {SLEEP_S} s")
    slept_ms = _sleeper(node)
    figures = [
        Figure(
            "billed, beside the workers' CPU less the host share: difference",
            abs(billed / due - 1) * 100,
            "%",
            2.0,
            "mixed load",
        ),
        Figure(
            "billed / CPU of the threads that run guests, guests that compute",
            computed / computing.loop * 100,
            "%",
            note="the rest is our work between slices",
        ),
        Figure(f"billed to a request that sleeps {SLEEP_S} s", slept_ms, "ms", 5.0),
        Figure("mixed load: the workers' CPU", mixed.process / 1e9, "s"),
        Figure("mixed load: billed", billed / 1e9, "s"),
        Figure("mixed load: host share", mixed.host_share / 1e9, "s"),
        Figure("of it threads that run no guest", (mixed.process - mixed.loop) / 1e9, "s"),
        *(Figure(f"mixed load: {name}", count, "") for name, count in sorted(counts.items())),
    ]
    raw = {"billed_ns": billed, "due_ns": due, "computed_ns": computed, "loop_ns": computing.loop}
    return Result("billed", figures, raw)


def _deploy(node: Node, folder: Path, name: str, source: str, manifest: str) -> None:
    folder.mkdir()
    (folder / "app.py").write_text(source)
    (folder / "requirements.txt").write_text("flask\n")
    (folder / "isopod.toml").write_text(manifest)
    node.cli("deploy", str(folder), "--name", name)


# -- both sides -------------------------------------------------------------------------------


def _used(node: Node) -> Used:
    process = loop = slices = 0
    for worker in node.worker_status():
        # The slices first: what runs between the two looks makes our share larger, never smaller.
        slices += worker["guest_cpu_ns"]
        pid = worker["pid"]
        # Not the sum of its threads: each tick is a thread that has ended since.
        process += int(processes.cpu_s([pid]) * 1e9)
        loop += int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])
    return Used(process, loop, slices)


def _billed(node: Node) -> int:
    ledger = node.data_dir / "usage" / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        found = db.execute("SELECT coalesce(sum(cpu_ns), 0) FROM rollups WHERE grain = 86400")
        return int(found.fetchone()[0])


def _settled(node: Node) -> int:
    """What is billed when everything has arrived: it does not change any more."""
    last, since = _billed(node), time.monotonic()
    while time.monotonic() - since < 4:
        time.sleep(0.2)
        if (now := _billed(node)) != last:
            last, since = now, time.monotonic()
    return last


# -- the load ---------------------------------------------------------------------------------


def _load(
    node: Node, client: Callable[[Node, random.Random], str], seconds: float
) -> dict[str, int]:
    """Eight clients for so long; what they did, counted. Nobody is served when it returns."""
    counts: dict[str, int] = {}
    end = time.monotonic() + seconds

    def run(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            try:
                did = client(node, chance)
            except (OSError, http.client.HTTPException):
                did = "cut"
            counts[did] = counts.get(did, 0) + 1

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while any(one["state"] != "idle" for one in node.instances()):
        time.sleep(0.05)
    return counts


def _mixed(node: Node, chance: random.Random) -> str:
    kind = chance.choices(
        ["warm", "compute", "sleep", "stream", "fails", "late", "cold", "alone", "plain", "leaves",
         "too long", "too much"],
        weights=[30, 10, 5, 5, 3, 3, 5, 5, 1, 4, 2, 2],
    )[0]  # fmt: skip
    app, path = {
        "warm": ("mixed", "/"),
        "compute": ("mixed", f"/compute/{chance.random():.2f}"),
        "sleep": ("mixed", f"/sleep/{chance.random() * 0.3:.2f}"),
        "stream": ("mixed", "/stream"),
        "fails": ("mixed", "/fails"),
        "late": ("mixed", "/late"),
        "cold": ("short", "/"),
        "alone": ("alone", "/compute/0.1"),
        "plain": ("plain", "/"),
        "leaves": ("mixed", "/compute/5"),
        "too long": ("strict", "/sleep/2"),
        "too much": ("strict", "/compute/50"),
    }[kind]
    if kind == "leaves":
        _leave(node, app, path, chance.random() * 0.2)
        return kind
    with Caller(node.gateway_port, app) as caller:
        for _ in range(20 if kind == "warm" else 1):
            caller.call(path)
    return kind


def _leave(node: Node, app: str, path: str, after_s: float) -> None:
    """A client that hangs up while its request is served."""
    with socket.create_connection(("127.0.0.1", node.gateway_port)) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\n\r\n".encode())
        time.sleep(after_s)


def _computing(node: Node, _chance: random.Random) -> str:
    with Caller(node.gateway_port, "mixed") as caller:
        caller.call("/compute/20")
    return "computed"


def _sleeper(node: Node) -> float:
    """CPU milliseconds billed to a request that only sleeps."""
    with Caller(node.gateway_port, "mixed") as caller:
        caller.call("/")
        request = caller.call(f"/sleep/{SLEEP_S}")["X-Request-Id"]
    _settled(node)
    ledger = node.data_dir / "usage" / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        look = "SELECT cpu_ns FROM records WHERE request_id = ?"
        return float(db.execute(look, (request,)).fetchone()[0]) / 1e6
