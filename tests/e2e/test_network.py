"""Apps that connect to somewhere, on a real node, beside the broker's death."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.c_modules import compiled
from tests.e2e.nodes import PATIENCE_S, folder, get, text, until, up

from tools.node import Node

ROOT = Path(__file__).resolve().parents[2]
WAITING = 200
APP = """
import os, socket, urllib.error, urllib.request

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("content-type", "text/plain")])
    if path == "/":
        return [b"here"]
    if path == "/udp":
        host, port = os.environ["UPSTREAM"].removeprefix("http://").split(":")
        with socket.socket(type=socket.SOCK_DGRAM) as s:
            s.settimeout(60)
            s.sendto(b"asked", (host, int(port)))
            return [s.recvfrom(100)[0]]
    try:
        with urllib.request.urlopen(os.environ["UPSTREAM"] + path, timeout=600) as answer:
            return [answer.read()]
    except OSError as error:
        return [repr(error).encode()]
"""
MANIFEST = """
[network]
allow = ["127.0.0.1:{port}"]
[limits]
memory_mib = 64
deadline_ms = 60000
[scaling]
max_instances = {instances}
[env]
UPSTREAM = "http://127.0.0.1:{port}"
"""


class Upstream(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.waiting = 0
        self.lock = threading.Lock()
        self.go = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answers(http.server.BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        if self.path == "/slow":
            with self.server.lock:
                self.server.waiting += 1
            self.server.go.wait(600)
        body = f"upstream {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def own_node(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("network") / "data"
    grant = {"ISOPOD_EGRESS_PRIVATE": f"127.0.0.1:{upstream.port}"}
    with up(data, extra_env=grant) as node:
        yield node


@pytest.fixture(scope="module")
def client(own_node: Node, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """The node with an app `client` that may connect to `upstream`."""
    path = folder(
        tmp_path_factory.mktemp("apps") / "client",
        {
            "app.py": APP,
            "isopod.toml": MANIFEST.format(port=upstream.port, instances=WAITING + 10),
        },
    )
    own_node.cli("deploy", str(path))
    return own_node


def brokers(node: Node) -> list[int]:
    found = []
    for process in node.children():
        with contextlib.suppress(OSError):
            if b"egress_process" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                found.append(process.pid)
    return found


def test_an_app_reaches_what_it_and_the_operator_name(client, upstream):
    assert text(client, "client", "/hello") == "upstream /hello"
    shown = client.cli("app", "client")
    assert f"127.0.0.1:{upstream.port}" in shown
    assert client.json("app", "client")["network"] == [f"127.0.0.1:{upstream.port}"]


def test_datagrams_pass_the_nodes_relay(client, upstream):
    with socket.socket(type=socket.SOCK_DGRAM) as server, ThreadPoolExecutor(1) as pool:
        server.bind(("127.0.0.1", upstream.port))
        server.settimeout(PATIENCE_S)
        asked = pool.submit(text, client, "client", "/udp")
        data, peer = server.recvfrom(100)
        server.sendto(data + b" and answered", peer)
        assert asked.result() == "asked and answered"


def test_nothing_is_reached_by_default(client, upstream, tmp_path):
    manifest = f'[env]\nUPSTREAM = "http://127.0.0.1:{upstream.port}"\n'
    path = folder(tmp_path / "closed", {"app.py": APP, "isopod.toml": manifest})
    client.cli("deploy", str(path))
    said = text(client, "closed", "/hello")
    assert "PermissionError" in said
    assert f'allow = ["127.0.0.1:{upstream.port}"]' in said


def test_a_program_in_c_reaches_what_it_lists_and_nothing_by_default(client, upstream, tmp_path):
    module = compiled(ROOT / "tests" / "guests" / "wcgi" / "net.c", f"-I{ROOT / 'sdk' / 'c'}")
    asked = f"/http?{upstream.port},127.0.0.1"
    for manifest in ("", f'[network]\nallow = ["127.0.0.1:{upstream.port}"]\n'):
        path = folder(tmp_path / f"program-{bool(manifest)}", {"isopod.toml": manifest})
        (path / "net.wasm").write_bytes(module)
        client.cli("deploy", str(path), "--name", "program", "--allow-new")
        said = text(client, "program", asked)
        if manifest:
            assert said.endswith("\r\n\r\nupstream /wasm")
        else:
            assert said == "connect Permission denied\n"
            until("its log", lambda: f"{upstream.port}" in client.cli("logs", "program"))
            assert "in isopod.toml: [network] allow" in client.cli("logs", "program")


def test_another_tenant_has_nothing_of_a_grant(client, upstream, tmp_path):
    client.cli("tenants", "create", "acme")
    manifest = MANIFEST.format(port=upstream.port, instances=2)
    path = folder(tmp_path / "theirs", {"app.py": APP, "isopod.toml": manifest})
    client.cli("deploy", str(path), "--tenant", "acme")
    said = text(client, "theirs", "/hello")
    assert "PermissionError" in said
    assert "operator" in said


def test_two_hundred_instances_wait_at_once_and_others_are_served(client, upstream):
    with ThreadPoolExecutor(WAITING) as pool:
        waiting = [pool.submit(get, client, "client", "/slow") for _ in range(WAITING)]
        until("all wait", lambda: upstream.waiting == WAITING)
        assert text(client, "client", "/") == "here"
        assert not any(one.done() for one in waiting)
        upstream.go.set()
        answers = [one.result() for one in waiting]
    assert {answer.text for answer in answers} == {"upstream /slow"}


def test_a_broker_that_is_killed_is_replaced_and_nobody_notices(client):
    (pid,) = brokers(client)
    os.kill(pid, signal.SIGSTOP)  # so that it has not answered when it dies
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(text, client, "client", f"/{number}") for number in range(5)]
        os.kill(pid, signal.SIGKILL)
        assert [one.result() for one in asked] == [f"upstream /{number}" for number in range(5)]
    until("another broker", lambda: brokers(client) not in ([], [pid]))
    assert text(client, "client", "/after") == "upstream /after"


def test_a_worker_that_is_killed_finds_its_broker_again(client):
    (worker,) = client.workers()
    os.kill(worker.pid, signal.SIGKILL)

    def served() -> bool:
        with contextlib.suppress(OSError, AssertionError):
            return text(client, "client", "/again") == "upstream /again"
        return False

    until("served again", served)


def test_what_connects_while_it_is_deployed_is_told_where(client, upstream, tmp_path):
    early = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {upstream.port}), timeout=10)
    state = "connected"
except OSError as error:
    state = str(error)

def app(environ, start_response):
    start_response("200 OK", [])
    return [state.encode()]
"""
    manifest = f'[network]\nallow = ["127.0.0.1:{upstream.port}"]\n'
    path = folder(tmp_path / "early", {"app.py": early, "isopod.toml": manifest})
    client.cli("deploy", str(path))
    said = client.cli("app", "early")
    assert "plain boot" in said
    assert "app.py:4" in said
    # In a worker it is as it wants it: at each start.
    assert text(client, "early") == "connected"
    eager = early.replace("except OSError", "except KeyError")
    done = client.run("deploy", str(folder(tmp_path / "eager", {"app.py": eager})))
    assert done.returncode
    assert "connect in a request" in done.stdout + done.stderr
