"""A node with an attacker's app and a neighbour's, who is another tenant, and what must hold after
each attack."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.nodes import folder, log, text, until, up

from tools import processes
from tools.http_calls import Answer, Caller
from tools.node import Node

# Runs what it is sent: whatever the attacker's code can do, an attacker's app can.
_ATTACKER = """
import json
print("the attacker was here")
KEPT = []
def app(environ, start_response):
    code = environ["wsgi.input"].read().decode()
    names = {"environ": environ, "start_response": start_response, "KEPT": KEPT, "answer": None}
    exec(code, names)
    if "body" in names:
        return names["body"]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(names["answer"]).encode()]
"""
NEXT_DOOR = ("--tenant", "next-door")
_SECRET = "the-neighbours-secret-7d1f"
_NEIGHBOUR = f"""
import os
os.makedirs("/tmp/private", exist_ok=True)
open("/tmp/private/diary", "w").write("{_SECRET}")
def app(environ, start_response):
    print("the neighbour says {_SECRET}", os.environ["PASSWORD"])
    start_response("200 OK", [])
    return [b"fine"]
"""
_MANIFEST = """
[limits]
deadline_ms = 1000
memory_mib = 96
disk_mib = 8
[startup]
snapshot = {snapshot}
"""
_MORE_DESCRIPTORS, _MORE_MIB = 60, 300  # while instances of the attack still live


@dataclass(frozen=True)
class Worker:
    pid: int
    descriptors: int
    private_mib: float


class Battlefield:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.first = self.worker()

    def run(self, code: str, *, timeout_s: float = 30, **headers: str) -> Answer:
        """Have the attacker's app run `code`; what it leaves in `answer` is the JSON body."""
        with Caller(self.node.gateway_port, "attacker", timeout_s=timeout_s) as caller:
            return caller.call("/", "POST", code.encode(), **headers)

    def ask(self, code: str) -> Any:
        answer = self.run(code)
        assert answer.status == 200, (answer.status, answer.text)
        return answer.json()

    def worker(self) -> Worker:
        (one,) = self.node.workers()
        return Worker(
            one.pid,
            len(list(Path(f"/proc/{one.pid}/fd").iterdir())),
            processes.private_mib(one.pid),
        )

    def assert_lives(self, before: Worker) -> None:
        now = self.worker()
        assert now.pid == before.pid, "the worker was replaced"
        assert text(self.node, "neighbour") == "fine"
        assert now.descriptors <= self.first.descriptors + _MORE_DESCRIPTORS
        assert now.private_mib <= self.first.private_mib + _MORE_MIB

    def assert_clean_end(self) -> None:
        """When all is over: no instance, no file and no line of one app with another."""
        self.node.cli("sleep", "attacker")
        self.node.cli("sleep", "neighbour", *NEXT_DOOR)
        until("the instances' end", lambda: not self.node.instances())
        until("an empty /tmp", lambda: not self.left_in_tmp())
        now = self.worker()
        assert now.descriptors <= self.first.descriptors + 8
        assert now.private_mib <= self.first.private_mib + 128
        theirs = self.neighbours_log()
        assert _SECRET not in json.dumps(log(self.node, "attacker")) and _SECRET in theirs
        assert "attacker" not in theirs
        assert "starting it again" not in self.node.said

    def neighbours_log(self) -> str:
        lines = self.node.cli("logs", "neighbour", "--json", *NEXT_DOOR).splitlines()
        return "\n".join(json.loads(line)["message"] for line in lines)

    def left_in_tmp(self) -> list[Path]:
        return list((self.node.data_dir / "run" / "tmp").glob("worker-*/*"))


def deploy_neighbour(node: Node, path: Path) -> None:
    neighbour = folder(path / "neighbour", {"app.py": _NEIGHBOUR})
    node.cli("tenants", "create", NEXT_DOOR[1])
    options = ("--name", "neighbour", "--env", f"PASSWORD={_SECRET}", *NEXT_DOOR)
    node.cli("deploy", str(neighbour), *options)


@contextlib.contextmanager
def fought(path: Path) -> Iterator[Battlefield]:
    attacker = folder(
        path / "attacker",
        {"app.py": _ATTACKER, "isopod.toml": _MANIFEST.format(snapshot="true")},
    )
    with up(path / "data", workers=1) as node:
        deploy_neighbour(node, path)
        node.cli("deploy", str(attacker), "--name", "attacker", "--env", "MINE=1")
        assert text(node, "neighbour") == "fine"
        yield Battlefield(node)
