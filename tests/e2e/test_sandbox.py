"""Workers and builders are shut in: what an attacker finds who is out of WebAssembly, what still
works under load, and what a node says where the kernel lacks a part."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.c_modules import compiled
from tests.e2e.nodes import PATIENCE_S, folder, get, text, until, up

from isopod.blobs.store import BlobStore
from isopod.sandbox.features import probe
from isopod.server.children import TENANT, Child, ChildSpec
from isopod.server.data_dir import ensure_token, prepare_data_dir
from isopod.server.handover import Handover
from isopod.settings import NodeSettings, bare_environment
from tools.node import Node
from tools.processes import Process

STUBS = Path(__file__).parent.parent / "stubs"
CASES = Path(__file__).parent.parent / "guests" / "wcgi" / "cases.c"
BUSY = """
import os, shutil, sys, time

def files(_environ):
    os.makedirs("/tmp/a/b")
    with open("/tmp/a/x", "w") as file:
        file.write("x" * 100_000)
    os.rename("/tmp/a/x", "/tmp/a/b/y")
    os.symlink("y", "/tmp/a/b/z")
    os.truncate("/tmp/a/b/y", 3)
    os.utime("/tmp/a/b/y", (1, 1))
    with open("/tmp/a/b/z", "r+") as file:
        file.seek(1)
        file.write("?")
        os.fsync(file.fileno())
    found = open("/tmp/a/b/y").read(), sorted(os.listdir("/tmp/a/b")), os.stat("/tmp/a/b/y").st_size
    shutil.rmtree("/tmp/a")
    return repr(found)

def loops(_environ):
    while True:
        pass

def grows(_environ):
    return len([bytearray(1 << 20) for _ in range(4096)])

def fails(_environ):
    raise ValueError("on purpose")

def prints(_environ):
    for number in range(2000):
        print(number, "x" * 100)
    print("to stderr", file=sys.stderr)

def sleeps(_environ):
    time.sleep(0.3)

def random(_environ):
    return os.urandom(8).hex()

def leaves(_environ):
    for number in range(300):
        os.makedirs(f"/tmp/{number}/x")

def reads(environ):
    return len(environ["wsgi.input"].read())

def app(environ, start_response):
    said = globals()[environ["PATH_INFO"].strip("/") or "random"](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(said).encode()]
"""


@pytest.fixture(scope="module", params=["", "acme"], ids=["shared", "a tenant's own"])
def report(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Any]]:
    """What a worker met that is shut in as the real one is (see the stub), and its process."""
    settings = NodeSettings.load(data_dir=tmp_path_factory.mktemp("attempts") / "data")
    prepare_data_dir(settings)
    ensure_token(settings.token_path)
    BlobStore(settings.blobs_dir).put_bytes(b"of somebody")
    for secret in (
        settings.state_path,
        settings.routes_path,
        settings.ledger_path,
        settings.spool_path(1),
        settings.worker_tmp(1) / "secret",
        settings.trees_dir / "tree" / "app.py",
        settings.logs_dir / "secret.jsonl",
        settings.quota_dir / "zoo",
        settings.cordons_dir / "acme" / "routes" / "routes.db",
        settings.cordons_dir / "zoo" / "trees" / "tree" / "app.py",
        settings.cordons_dir / "zoo" / "machine-code" / "x.cwasm",
        settings.cordons_dir / "zoo" / "routes" / "routes.db",
        settings.cordons_dir / "zoo" / "logs" / "secret.jsonl",
        settings.volumes_dir / "zoo" / "data" / "data" / "secret",
        settings.apart_volumes_dir / "zoo" / "data" / "data" / "secret",
    ):
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("a secret")
    spec = ChildSpec(
        "worker 0",
        "attempting_worker",
        bare_environment(
            ISOPOD_WORKER_INDEX="0",
            ISOPOD_MARKER="a marker",
            PYTHONPATH=_path(),
            **({TENANT: request.param} if request.param else {}),
        ),
        handed=Handover(settings, probe()).to_bytes(),
    )
    child = Child(spec, report=print)
    with asyncio.Runner() as runner:
        runner.run(child.start())
        try:
            found = json.loads((settings.worker_tmp(0) / "report.json").read_text())
            yield {**found, "pid": child.pid}
        finally:
            runner.run(child.stop(1))


def _path() -> str:
    return os.pathsep.join([str(STUBS), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_everything_that_an_attacker_in_a_worker_tries_is_denied(report):
    assert report["sandbox"]["missing"] == []
    for name, met in report["attempts"].items():
        print(f"SEEN {name}: {met or 'IT WORKED'}")
    worked = [name for name, met in report["attempts"].items() if not met]
    assert worked == []


def test_no_attempt_failed_for_want_of_what_it_was_aimed_at(report):
    beside_the_point = {"ENOENT", "EINVAL", "EFAULT", "ESRCH", "ENOTSOCK"}
    assert {n: m for n, m in report["attempts"].items() if m in beside_the_point} == {}


def test_what_a_worker_needs_still_works(report):
    assert set(report["allowed"].values()) == {""}


def test_a_worker_has_no_environment_inside_or_in_proc(report):
    assert report["environment"] == {}
    shown = Path(f"/proc/{report['pid']}/environ")
    try:
        seen = shown.read_bytes()
    except PermissionError:  # not even its own account may look, unless it is root
        return
    assert seen.strip(b"\0") == b""


# -- a node ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A worker dies of any system call that nobody thought of; it is replaced after 2 s of
    standing still."""
    base = tmp_path_factory.mktemp("strict")
    env = {"PYTHONPATH": _path(), "ISOPOD_STALL_S": "2", "UV_INDEX_SECRET_PASSWORD": "a-secret"}
    with up(base / "data", extra_env=env, program=(sys.executable, _stub("strict_node"))) as node:
        # What ends by itself takes a busy machine long: of that one without a deadline.
        for name, manifest in (("busy", ""), ("brief", "[limits]\ndeadline_ms = 1500")):
            app = folder(base / name, {"app.py": BUSY, "isopod.toml": manifest})
            node.cli("deploy", str(app), "--name", name)
        yield node


def _stub(name: str) -> str:
    return str(STUBS / f"{name}.py")


def _worker(node: Node) -> Process:
    (found,) = [
        one
        for one in node.children()
        if one.parent == node.process.pid and "strict_worker" in one.command
    ]
    return found


def _every_thread(pid: int, field: str) -> set[str]:
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        found.add(lines[field].strip())
    return found


def test_every_thread_of_a_serving_worker_is_shut_in(strict):
    text(strict, "busy")
    worker = _worker(strict)
    for field, value in (
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", "0" * 16),
        ("CapPrm", "0" * 16),
        ("CapBnd", "0" * 16),
        ("CapAmb", "0" * 16),
    ):
        if field == "CapBnd" and os.geteuid():
            continue  # only root may lower it; without exec it means nothing
        assert _every_thread(worker.pid, field) == {value}, field


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_worker_is_replaced_when_a_process_beside_it_has_ended(strict, which):
    worker, ready = _worker(strict), strict.said.count("is ready again")
    beside = [one for one in strict.children() if one.parent == worker.pid]
    assert len(beside) == 3  # one makes files, one compiles modules, one opens secrets
    os.kill(beside[which].pid, signal.SIGKILL)
    until("a new worker", lambda: strict.said.count("is ready again") > ready)
    assert _worker(strict).pid != worker.pid
    assert text(strict, "busy")


def test_control_has_no_privileges_either(strict):
    (control,) = [one for one in strict.children() if "control_process" in one.command]
    assert _every_thread(control.pid, "NoNewPrivs") == {"1"}
    assert _every_thread(control.pid, "CapEff") == {"0" * 16}


def test_a_worker_under_load_makes_no_call_that_is_not_listed(strict):
    # A new worker, which extracts trees and assembles images itself.
    trees = strict.data_dir / "trees"
    for cache in (trees, strict.data_dir / "images"):
        for entry in cache.iterdir():
            shutil.rmtree(entry)
    ready = strict.said.count("is ready again")
    os.kill(_worker(strict).pid, signal.SIGKILL)
    until("a new worker", lambda: strict.said.count("is ready again") > ready)
    before = _worker(strict)
    for _ in range(2):
        assert text(strict, "busy", "/files") == "('x?x', ['y', 'z'], 3)"
        for path, status in (("/prints", 200), ("/sleeps", 200), ("/leaves", 200), ("/fails", 502)):
            assert get(strict, "busy", path).status == status
        until("it is awake", lambda: get(strict, "brief").status == 200)
        assert get(strict, "brief", "/loops").status == 504
        assert get(strict, "busy", "/grows").status >= 500
        strict.cli("sleep", "busy")
    strict.cli("deploy", str(strict.data_dir.parent / "busy"), "--name", "again")
    text(strict, "again")
    _deploy_a_module(strict)
    for path in ("/", "/tmp", "/pieces", "/large"):
        assert text(strict, "module", path)
    assert not list(trees.glob(".*")), "a build left something"
    assert _worker(strict).pid == before.pid, strict.said
    assert "SIGSYS" not in strict.said


def _deploy_a_module(node: Node) -> None:
    """An app whose machine code is made while the worker serves."""
    app = folder(node.data_dir.parent / "module", {})
    (app / "cases.wasm").write_bytes(compiled(CASES))
    node.cli("deploy", str(app))


def test_the_status_names_the_layers_of_each_worker(strict):
    (worker,) = strict.json("status")["workers"]
    assert worker["sandbox"]["missing"] == []
    assert {"no new privileges", "no capabilities", "seccomp"} <= set(worker["sandbox"]["on"])
    assert "complete" in strict.cli("status")


def test_index_credentials_and_the_client_token_reach_no_worker(strict):
    worker = _worker(strict)
    assert b"a-secret" not in _own_memory(worker.pid)


def _own_memory(pid: int) -> bytes:
    """The writable part of a process, as far as it may be read."""
    found = bytearray()
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span, rights, *_, name = [*line.split(), ""]
                start, end = (int(part, 16) for part in span.split("-"))
                if "w" in rights and end - start < 64 << 20 and "image" not in name:
                    memory.seek(start)
                    found += memory.read(end - start)
    except PermissionError:
        pass  # only root may look: nobody else would find a secret here either
    return bytes(found)


def test_a_worker_whose_loop_stands_still_is_replaced_and_the_node_serves_on(strict):
    text(strict, "busy")
    before = _worker(strict)
    ready = strict.said.count("is ready again")
    os.kill(before.pid, signal.SIGUSR1)
    until("a new worker", lambda: strict.said.count("is ready again") > ready)
    assert _worker(strict).pid != before.pid
    assert "has stood still for" in strict.said
    assert text(strict, "busy")


def test_a_worker_with_guests_at_full_tilt_is_not_taken_for_one_that_stands_still(strict):
    before = _worker(strict)
    callers = [socket.create_connection(("127.0.0.1", strict.gateway_port)) for _ in range(8)]
    for one in callers:
        one.sendall(b"GET /loops HTTP/1.1\r\nHost: brief.localhost\r\n\r\n")
    answers = []
    for one in callers:
        one.settimeout(PATIENCE_S)
        answers.append(one.recv(65536))
        one.close()
    # A busy machine has no instance for each within its short deadline.
    assert any(b" 504 " in answer for answer in answers)
    assert all(b" 504 " in answer or b'"overloaded"' in answer for answer in answers)
    after = _worker(strict)
    assert before.pid == after.pid, strict.said


# -- a poorer kernel -------------------------------------------------------------------------


def test_what_the_kernel_lacks_is_said_at_the_start_and_in_the_status(data_dir):
    env = {"PYTHONPATH": _path(), "ISOPOD_TEST_LACKS": "landlock"}
    with up(data_dir, extra_env=env, program=(sys.executable, _stub("strict_node"))) as node:
        said = [line for line in node.said.splitlines() if line.startswith("sandbox: ")]
        assert len(said) == 1
        assert "no landlock (it was disabled at boot)" in said[0]
        (worker,) = node.json("status")["workers"]
        assert worker["sandbox"]["missing"] == ["landlock"]
        assert "without landlock" in node.cli("status")


def test_a_node_that_requires_the_whole_sandbox_does_not_start_without_it(data_dir):
    env = {"PYTHONPATH": _path(), "ISOPOD_TEST_LACKS": "landlock"}
    program = (sys.executable, _stub("strict_node"))
    with (
        pytest.raises(RuntimeError, match="ended with status"),
        up(data_dir, "--require-sandbox", extra_env=env, program=program),
    ):
        pass
    said = data_dir.with_name("data.log").read_text()
    assert "code: sandbox_unavailable" in said
    assert "lacks landlock" in said
