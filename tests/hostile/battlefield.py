"""A node with an attacker's app and a neighbour's, who is another tenant, and what must hold after
each attack."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.nodes import folder, had, log, text, until, up

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
# Two apps of one attacker: one with a short deadline for what never ends, one for what ends by
# itself, which a busy machine takes long for.
ATTACKERS = ("attacker", "patient")
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
memory_mib = 96
disk_mib = 8
"""
_DEADLINE = "deadline_ms = 1000\n"
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

    def run(self, code: str, *, app: str = "attacker") -> Answer:
        """Have the attacker's app run `code`; what it leaves in `answer` is the JSON body."""

        def sent() -> Answer:
            with Caller(self.node.gateway_port, app) as caller:
                return caller.call("/", "POST", code.encode())

        return had(sent)

    def ask(self, code: str) -> Any:
        """The answer of what ends by itself: of the attacker's app without a short deadline."""
        answer = self.run(code, app="patient")
        assert answer.status == 200, (answer.status, answer.text)
        return answer.json()

    def assert_serves(self) -> None:
        """The next request, by another instance if need be."""
        assert self.run("answer = 'again'").text == '"again"'

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
        until("its level", lambda: self._within(_MORE_DESCRIPTORS, _MORE_MIB))

    def _within(self, descriptors: int, mib: int) -> bool:
        """Whether the worker has no more than so much beyond what it had at first."""
        now, first = self.worker(), self.first
        return (
            now.descriptors <= first.descriptors + descriptors
            and now.private_mib <= first.private_mib + mib
        )

    def assert_clean_end(self) -> None:
        """When all is over: no instance, no file and no line of one app with another."""
        for app in ATTACKERS:
            self.node.cli("sleep", app)
        self.node.cli("sleep", "neighbour", *NEXT_DOOR)
        until("the instances' end", lambda: not self.node.instances())
        until("an empty /tmp", lambda: not self.left_in_tmp())
        until("its first level", lambda: self._within(8, 128))
        theirs = self.neighbours_log()
        assert _SECRET in theirs
        assert not any(_SECRET in json.dumps(log(self.node, app)) for app in ATTACKERS)
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
    with up(path / "data", workers=1) as node:
        deploy_neighbour(node, path)
        for name, manifest in zip(ATTACKERS, (_MANIFEST + _DEADLINE, _MANIFEST), strict=True):
            app = folder(path / name, {"app.py": _ATTACKER, "isopod.toml": manifest})
            node.cli("deploy", str(app), "--name", name, "--env", "MINE=1")
        assert text(node, "neighbour") == "fine"
        yield Battlefield(node)
