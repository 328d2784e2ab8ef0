"""Processes that are killed, ports that are taken, nodes that are stopped. Each on a node of its
own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.nodes import (
    HELLO,
    PATIENCE_S,
    Failed,
    copied,
    folder,
    get,
    hello,
    refused,
    text,
    until,
    up,
)
from tests.e2e.wire import wire

from tools import processes
from tools.http_calls import Caller
from tools.node import Node


def hangs(path: Path, name: str) -> Path:
    """An app whose build never ends. The same package is built once at a time: each is its own."""
    return folder(path, {"app.py": "while True: pass\n" + HELLO % name})


def builders(node: Node) -> list[processes.Process]:
    return [process for process in node.children() if " isopod.builder" in process.command]


def busy(node: Node) -> dict[int, int]:
    """The pid of each worker with busy instances, and how many."""
    found: dict[int, int] = {}
    for one in node.instances():
        if one["state"] == "busy":
            found[one["pid"]] = found.get(one["pid"], 0) + 1
    return found


def test_a_port_in_use_is_refused_by_number(data_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--port", "--control-port"):
            status, said = refused(data_dir, option, str(port))
            assert status == 3 and "code: port_in_use" in said
            assert str(port) in said and option in said
            assert "Traceback" not in said
    print(f"SEEN {said}")


@pytest.fixture(scope="module")
def sturdy(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node for the faults that it outlives."""
    with up(copied(stopped, tmp_path_factory.mktemp("sturdy") / "data")) as node:
        yield node


def test_a_second_node_on_a_data_dir_is_refused_and_the_first_serves_on(sturdy):
    status, said = refused(sturdy.data_dir)
    assert status == 3 and "code: node_already_running" in said, said
    assert str(sturdy.data_dir) in said and str(sturdy.process.pid) in said
    print(f"SEEN {said}")
    assert text(sturdy, "app") == "hello"


def test_a_folder_of_something_else_is_refused_as_data_dir(data_dir):
    folder(data_dir, {"thesis.txt": "mine"})
    status, said = refused(data_dir)
    assert status == 3 and "code: data_dir_unusable" in said
    assert sorted(path.name for path in data_dir.iterdir()) == ["thesis.txt"]


def test_a_killed_worker_loses_its_own_requests_alone_and_is_started_again(deployed):
    with up(deployed, workers=2) as node, ThreadPoolExecutor(40) as pool:
        before = {worker.pid for worker in node.workers()}

        def slow() -> str:
            try:
                return get(node, "kitchen", "/sleep?8").text
            except (ConnectionError, OSError):
                return "cut"

        def both_serve() -> bool:
            list(pool.map(lambda _: get(node, "kitchen"), range(32)))
            return len({one["pid"] for one in node.instances()}) == 2

        # Whoever is free accepts: a first burst may all go to one.
        until("both workers serve it", both_serve)
        sleeping: list[Future[str]] = []

        def both_at_work() -> bool:
            now = busy(node)
            if len(now) == 2 and sum(now.values()) > 9:
                return True
            if sum(not one.done() for one in sleeping) < 20:
                sleeping.extend(pool.submit(slow) for _ in range(4))
            return False

        until("both workers at work", both_at_work)
        victim = min(before)
        own = busy(node)[victim]
        os.kill(victim, signal.SIGKILL)
        # The socket is shared: nobody who comes now is turned away.
        for _ in range(50):
            assert text(node, "kitchen") == "hello\n"
        answers = [one.result() for one in sleeping]
        print(f"SEEN kill -9 of a worker: {answers.count('cut')} cut, it served {own}")
        assert set(answers) <= {"slept", "cut"}
        # It may have had more at the door than it served.
        assert own <= answers.count("cut") < len(answers)
        until("another worker", lambda: len({w.pid for w in node.workers()} - before) == 1)
        until("it is ready", lambda: "is ready again" in node.said)
        assert victim not in {worker.pid for worker in node.workers()}
        status = until(
            "both answer",
            lambda: len(node.json("status")["workers"]) == 2 and node.json("status"),
        )
        assert status["workers_wanted"] == 2
        assert "was killed by SIGKILL" in node.said


def test_a_killed_control_process_stops_no_app_and_is_started_again(sturdy):
    control = next(p for p in sturdy.children() if "control_process" in p.command)
    os.kill(control.pid, signal.SIGKILL)
    for _ in range(50):
        assert text(sturdy, "app") == "hello"
    until("it is ready", lambda: "control is ready again" in sturdy.said)
    assert [app["name"] for app in sturdy.json("apps")] == ["app", "kitchen"]


def test_a_killed_builder_fails_its_deploy_and_the_old_version_serves_on(sturdy, tmp_path):
    deploying = sturdy.popen("deploy", str(hangs(tmp_path / "new", "new")), "--name", "app")
    builder = until("a builder", lambda: builders(sturdy))[0]
    os.kill(builder.pid, signal.SIGKILL)
    _, said = deploying.communicate()
    print(f"SEEN kill -9 of the builder: {said}")
    assert deploying.returncode == 3
    assert "code: build_failed" in said and "killed by SIGKILL" in said
    assert text(sturdy, "app") == "hello"
    assert not builders(sturdy)
    sturdy.cli("deploy", str(hello(tmp_path / "next", "next")), "--name", "app")
    assert text(sturdy, "app") == "next"


def kill_supervisor(node: Node) -> None:
    """And wait until all that it had started is gone, also what was just being started."""
    family = node.children()
    node.process.kill()
    node.process.wait()

    def orphans() -> list[processes.Process]:
        ours = processes.mentioning(str(node.data_dir))
        return [p for p in ours if "isopod deploy" not in p.command] + [
            p for p in family if p.alive()
        ]

    until("no orphan", lambda: not orphans())


def test_a_supervisor_killed_during_a_deploy_leaves_no_process_and_nothing_half(deployed, tmp_path):
    with up(deployed, workers=2) as node:

        def half(name: str) -> subprocess.Popen[str]:
            return node.popen("deploy", str(hangs(tmp_path / name, name)), "--name", name)

        # A tenant builds no more than two at once.
        halves = [half("app")]
        node.cli("deploy", str(hello(tmp_path / "done", "acknowledged")), "--name", "done")
        halves.append(half("half"))
        # Each is a process that builds and one that watches it.
        until("two builds", lambda: len(builders(node)) == 4)
        kill_supervisor(node)
        for deploying in halves:
            _, said = deploying.communicate()
            assert deploying.returncode == 3 and "code: node_unreachable" in said, said
            assert "Traceback" not in said
        print(f"SEEN kill -9 of the supervisor: {said}")
    with up(deployed) as node:
        assert text(node, "app") == "hello"
        assert text(node, "done") == "acknowledged"
        assert Failed(node, "app", "half").code == "app_not_found"
        assert get(node, "half").status == 404
        assert not list((deployed / "uploads").iterdir())
        assert not [p for p in (deployed / "trees").iterdir() if p.name.startswith((".", "tmp"))]
        node.cli("deploy", str(hello(tmp_path / "next", "next")), "--name", "half")
        assert text(node, "half") == "next"


@pytest.mark.parametrize("step", ["upload", "start", "is live"])
def test_wherever_a_deploy_is_when_the_node_is_killed_what_was_acknowledged_serves(
    deployed, tmp_path, step
):
    with up(deployed) as node:
        deploying = node.popen("deploy", str(hello(tmp_path / "new", "new")), "--name", "app")
        assert deploying.stderr is not None
        for line in deploying.stderr:
            if step in line:
                break
        kill_supervisor(node)
        deploying.communicate()
    with up(deployed) as node:
        serves = text(node, "app")
        assert serves in (("new",) if deploying.returncode == 0 else ("hello", "new"))
        if step == "upload":
            assert serves == "hello"
        version = node.json("app", "app")["app"]["version"]
        assert version == (2 if serves == "new" else 1)
        node.cli("deploy", str(hello(tmp_path / "next", "next")), "--name", "app")
        assert text(node, "app") == "next"


@pytest.mark.parametrize("path", ["/sleep?2", "/stream"])
def test_sigterm_lets_a_request_in_flight_finish(deployed, path):
    with up(deployed) as node:
        answers: list[bytes] = []

        def ask() -> None:
            with wire(node, "kitchen") as line:
                line.send(f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n")
                answers.append(line.response().body)

        asking = threading.Thread(target=ask)
        asking.start()
        until("it is in flight", lambda: busy(node))
        began = time.monotonic()
        node.process.terminate()
        assert node.process.wait(PATIENCE_S) == 0
        asking.join()
        print(f"SEEN SIGTERM with {path} in flight: ended after {time.monotonic() - began:.1f} s")
        assert answers[0].endswith((b"slept", b"piece 4\n"))
        with pytest.raises(ConnectionRefusedError):
            get(node, "kitchen")
        assert not (deployed / "node.json").exists()


def test_an_idle_connection_does_not_hold_up_a_stop(deployed):
    with up(deployed) as node, Caller(node.gateway_port, "app") as caller:
        caller.call()
        began = time.monotonic()
        node.process.terminate()
        assert node.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < 9, "it drains for 10 s if there is something to wait for"


def test_a_second_ctrl_c_ends_the_node_at_once(deployed):
    with up(deployed) as node, wire(node, "kitchen") as line:
        line.send("GET /sleep?25 HTTP/1.1\r\nHost: HOST\r\n\r\n")
        until("it is in flight", lambda: busy(node))
        began = time.monotonic()
        node.process.send_signal(signal.SIGINT)
        until("it drains", lambda: "Stopping" in node.said)
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(PATIENCE_S) == 130
        assert time.monotonic() - began < 9, "it drains for 10 s"


def test_a_node_keeps_its_apps_over_a_restart_and_without_it_commands_say_so(data_dir, tmp_path):
    made: Path = hello(tmp_path / "app")
    with up(data_dir) as node:
        node.cli("deploy", str(made), "--name", "app")
        token = node.token
    for command in (("apps",), ("status",), ("logs", "x"), ("delete", "x", "--yes")):
        assert Failed(node, *command).code == "node_not_running"
    with up(data_dir) as node:
        assert text(node, "app") == "hello"
        assert node.token == token
        assert node.run("deploy", str(made), "--name", "app").returncode == 0
        assert node.json("app", "app")["app"]["version"] == 1
