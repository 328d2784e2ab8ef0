"""`python -m tools.volume_kills --rounds 200`: is every acknowledged row there, whatever is killed?

Each round two clients write rows to an app's SQLite database on a volume, over connections of
their own; then the worker that has the volume, or now and then the node, gets SIGKILL amid that.
At the end every row that was answered with 200 must be there, and the database must be sound.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tools import node as nodes
from tools.http_calls import Caller
from tools.node import Node

_APP = Path(__file__).parent.parent / "tests" / "e2e" / "apps" / "notes"
_CLIENTS = 2
_NODE_EVERY = 10  # rounds, of which in one the whole node is killed


@dataclass
class Rows:
    """What was answered with 200, and how often a request was not."""

    acknowledged: set[str] = field(default_factory=set)
    failed: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="isopod-kills-"))
    try:
        return _run(folder, asked.rounds, asked.seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, rounds: int, seed: int) -> int:
    print(f"seed {seed}")
    chance, rows, began = random.Random(seed), Rows(), time.monotonic()
    kills = {"worker": 0, "node": 0}
    node = _up(folder)
    try:
        node.cli("volumes", "create", "notes", "--size", "1024")
        node.cli("deploy", str(_APP), "--name", "notes")
        for number in range(rounds):
            whole = number % _NODE_EVERY == _NODE_EVERY - 1
            if _round(node, number, rows, after_s=chance.uniform(0.05, 0.5), whole=whole):
                kills["node" if whole else "worker"] += 1
            if whole:
                node = _up(folder)
            if number % 20 == 19:
                print(f"  {number + 1} rounds, {len(rows.acknowledged)} rows", flush=True)
        there, verdict = _stored(node, folder)
    finally:
        if node.process.poll() is None:
            node.stop()
    lost = rows.acknowledged - there
    took_s = time.monotonic() - began
    print(
        f"{rounds} rounds in {took_s:.0f} s: {kills['worker']} workers and {kills['node']} nodes "
        f"killed; {len(rows.acknowledged)} rows acknowledged, {rows.failed} requests failed, "
        f"{len(lost)} rows lost, {len(there)} stored; integrity_check: {verdict}"
    )
    return 1 if lost or verdict != "ok" else 0


def _up(folder: Path) -> Node:
    node = nodes.start(folder / "data", said=folder / "up.log", workers=2)
    node.wait_until_ready()
    return node


def _round(node: Node, number: int, rows: Rows, *, after_s: float, whole: bool) -> bool:
    """Whether somebody was killed."""
    stop = threading.Event()
    writers = [
        threading.Thread(target=_write, args=(node, f"{number}-{client}", rows, stop))
        for client in range(_CLIENTS)
    ]
    before = len(rows.acknowledged)
    for writer in writers:
        writer.start()
    try:
        end = time.monotonic() + 30
        while len(rows.acknowledged) < before + 3 and time.monotonic() < end:
            time.sleep(0.005)
        stop.wait(after_s)
        if whole:
            node.process.kill()
            node.process.wait()
            return True
        held = _holders(node)
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(held)
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def _holders(node: Node) -> set[int]:
    """The pid of the worker that has the volume, by its lease."""
    lease = node.data_dir / "volumes" / "default" / "notes" / "lease"
    with contextlib.suppress(ValueError, KeyError):
        return {json.loads(lease.read_text())["pid"]} & {one.pid for one in node.workers()}
    return set()


def _write(node: Node, prefix: str, rows: Rows, stop: threading.Event) -> None:
    count = 0
    while not stop.is_set():
        text = f"{prefix}-{count}"
        count += 1
        try:
            with Caller(node.gateway_port, "notes") as caller:
                answer = caller.call(f"/add?text={text}")
        except (OSError, http.client.HTTPException):
            rows.failed += 1
            continue
        if answer.status == 200:
            rows.acknowledged.add(text)
        else:
            rows.failed += 1


def _stored(node: Node, folder: Path) -> tuple[set[str], str]:
    """By the app itself, and by a backup that SQLite looks through."""
    with Caller(node.gateway_port, "notes") as caller:
        there = set(json.loads(caller.call("/texts").text))
    backup = folder / "backup.tar"
    node.cli("volumes", "backup", "notes", str(backup))
    with tarfile.open(backup) as archive:
        data = archive.extractfile("notes.db")
        assert data is not None
        (folder / "notes.db").write_bytes(data.read())
    with closing(sqlite3.connect(folder / "notes.db")) as db:
        verdict = str(db.execute("PRAGMA integrity_check").fetchone()[0])
        copied = {text for (text,) in db.execute("SELECT text FROM notes")}
    assert copied == there, "the backup and the app differ"
    return there, verdict


if __name__ == "__main__":
    sys.exit(main())
