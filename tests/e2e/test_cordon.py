"""A tenant with a worker process of its own, beside one that shares the others."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.e2e.nodes import (
    APPS,
    PATIENCE_S,
    Failed,
    deploy_all,
    dial,
    folder,
    get,
    hello,
    text,
    until,
    up,
)
from websockets.exceptions import ConnectionClosed

from tools.http_calls import Caller
from tools.node import Node

# What a request looks like from inside, and what it takes.
PROBE = """
import json, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/loop":
        while True:
            pass
    if path == "/hang":
        print("hanging", flush=True)
        time.sleep(60)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"x" * 65536 for _ in range(64))
    body = environ["wsgi.input"].read()
    said = {
        "length": len(body),
        "client": environ["REMOTE_ADDR"],
        "for": environ.get("HTTP_X_FORWARDED_FOR"),
        "id": environ.get("HTTP_X_REQUEST_ID"),
        "scheme": environ["wsgi.url_scheme"],
    }
    print("seen", path, flush=True)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
"""


# It connects to the port that its path names.
DIAL = """
import socket

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    there = ("127.0.0.1", int(environ["PATH_INFO"][1:] or 1))
    try:
        with socket.create_connection(there, timeout=10):
            return [b"connected"]
    except OSError as error:
        return [type(error).__name__.encode()]
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server on this machine that acme may reach."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Node]:
    """acme is behind a cordon; globex and the node's own tenant share two workers."""
    base = tmp_path_factory.mktemp("cordon")
    private = {"ISOPOD_EGRESS_PRIVATE": f"acme/127.0.0.1:{port}"}
    with up(base / "data", workers=2, extra_env=private) as node:
        node.cli("tenants", "create", "acme", "--cordon", "tenant")
        node.cli("tenants", "create", "globex")
        probe = folder(base / "probe", {"app.py": PROBE})
        names = ((f"{tenant}-probe", tenant) for tenant in ("acme", "globex"))
        deploy_all(node, *((str(probe), "--name", one, "--tenant", who) for one, who in names))
        yield node


def own_worker(node: Node, tenant: str) -> dict[str, Any] | None:
    return next((one for one in node.worker_status() if one["tenant"] == tenant), None)


def pids_of(node: Node, app: str) -> set[int]:
    return {one["pid"] for one in node.instances() if one["app"] == app}


def test_no_process_holds_instances_of_both(node):
    for _ in range(8):  # of either shared worker
        for app in ("acme-probe", "globex-probe"):
            text(node, app)
    own = own_worker(node, "acme")
    assert own is not None
    assert pids_of(node, "acme-probe") == {own["pid"]}
    assert own["pid"] not in pids_of(node, "globex-probe")
    assert "globex-probe" not in {one["app"] for one in own["instances"]}
    shown = node.json("status")
    assert [one["tenant"] for one in shown["workers"]] == ["", "", "acme"]
    assert shown["workers_wanted"] == 2
    assert own["sandbox"]["missing"] == shown["workers"][0]["sandbox"]["missing"]


def test_an_app_behind_a_cordon_connects_where_it_may(node, port, tmp_path):
    manifest = f'[network]\nallow = ["127.0.0.1:{port}"]\n'
    app = folder(tmp_path / "dial", {"app.py": DIAL, "isopod.toml": manifest})
    node.cli("deploy", str(app), "--name", "dial", "--tenant", "acme")
    assert text(node, "dial", f"/{port}") == "connected"
    assert text(node, "dial", "/1") == "PermissionError"
    node.cli("delete", "dial", "--tenant", "acme", "--yes")


def test_a_request_that_is_handed_over_is_seen_as_it_came(node):
    with Caller(node.gateway_port, "acme-probe") as caller:
        answer = caller.call("/seen", method="POST", body=b"x" * 3_000_000)
        assert answer.status == 200
        seen = answer.json()
        assert (seen["length"], seen["client"], seen["scheme"]) == (3_000_000, "127.0.0.1", "http")
        assert seen["for"] == "127.0.0.1"
        assert seen["id"] == answer.headers["x-request-id"]
        assert len(caller.call("/stream").body) == 64 * 65536
        # On the same connection still.
        assert caller.call("/again").status == 200


def test_it_is_counted_once_and_logged_where_its_tenant_reads_it(node, tmp_path):
    for _ in range(5):
        text(node, "acme-probe", "/logged")
    until("five lines", lambda: printed(node).count("seen /logged") >= 5)
    assert printed(node).count("seen /logged") == 5
    node.cli("deploy", str(hello(tmp_path / "app")), "--name", "counted", "--tenant", "acme")
    for _ in range(5):
        text(node, "counted")
    until("five requests are billed", lambda: requests(node, "counted") >= 5)
    assert requests(node, "counted") == 5
    assert {row["tenant"] for row in bill(node, "counted")["lines"]} == {"acme"}


def printed(node: Node) -> list[str]:
    lines = node.cli("logs", "acme-probe", "--tenant", "acme", "--json").splitlines()
    return [json.loads(line)["message"] for line in lines]


def bill(node: Node, app: str) -> dict[str, Any]:
    found: dict[str, Any] = node.json("usage", "--tenant", "acme", "--app", app)
    return found


def requests(node: Node, app: str) -> int:
    return int(bill(node, app)["total"]["usage"]["requests"])


def test_a_killed_worker_costs_its_own_requests_alone_and_is_started_again(node):
    own = own_worker(node, "acme")
    assert own is not None
    answers, before = [], len(printed(node))

    def hang() -> None:
        answers.append(get(node, "acme-probe", "/hang", accept="application/json"))

    hanging = threading.Thread(target=hang)
    hanging.start()
    until("it hangs", lambda: "hanging" in printed(node)[before:])
    os.kill(own["pid"], signal.SIGKILL)
    hanging.join(PATIENCE_S)
    assert [answer.status for answer in answers] == [502]
    assert answers[0].json()["error"]["code"] == "worker_gone"
    # Not even then by another worker: it waits for the next one of its own.
    answer = get(node, "acme-probe")
    assert answer.status == 200
    again = own_worker(node, "acme")
    assert again is not None
    assert again["pid"] != own["pid"]
    assert pids_of(node, "acme-probe") == {again["pid"]}
    assert text(node, "globex-probe")


def test_a_websocket_reaches_its_tenants_own_worker_and_ends_with_it(node):
    node.cli("deploy", str(APPS / "sockets"), "--name", "talk", "--tenant", "acme")
    with ExitStack() as stack:
        # Of either shared worker, as the kernel spreads them.
        clients = [stack.enter_context(dial(node, "/echo", "talk")) for _ in range(6)]
        for client in clients:
            for message in ("é", b"", os.urandom(300_000)):
                client.send(message)
                assert client.recv(timeout=PATIENCE_S) == message
        own = own_worker(node, "acme")
        assert own is not None
        assert pids_of(node, "talk") == {own["pid"]}
        os.kill(own["pid"], signal.SIGKILL)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=PATIENCE_S)
    with dial(node, "/echo", "talk") as client:
        client.send("again")
        assert client.recv(timeout=PATIENCE_S) == "again"
    again = own_worker(node, "acme")
    assert again is not None
    assert pids_of(node, "talk") == {again["pid"]} != {own["pid"]}


def test_a_neighbour_at_full_tilt_is_in_other_processes(node, tmp_path):
    node.cli("tenants", "create", "hooli")
    probe = folder(tmp_path / "probe", {"app.py": PROBE})
    node.cli("deploy", str(probe), "--name", "loops", "--tenant", "hooli")
    loops = [threading.Thread(target=get, args=(node, "loops", "/loop")) for _ in range(4)]
    for loop in loops:
        loop.daemon = True
        loop.start()
    until("they loop", lambda: busy(node, "loops") >= 1)
    for _ in range(20):
        assert get(node, "acme-probe").status == 200
    own = own_worker(node, "acme")
    assert own is not None
    assert own["pid"] not in pids_of(node, "loops")
    node.cli("tenants", "suspend", "hooli")
    node.cli("delete", "loops", "--yes", "--tenant", "hooli")


def busy(node: Node, app: str) -> int:
    return sum(one["state"] == "busy" for one in node.instances() if one["app"] == app)


def test_a_cordon_is_taken_away_and_put_up_again_and_nothing_is_lost(node):
    own = own_worker(node, "acme")
    assert own is not None
    text(node, "acme-probe", "/before")
    node.cli("tenants", "set", "acme", "--cordon", "shared")
    until("its worker has ended", lambda: len(node.workers()) == 2)
    trees = node.data_dir / "cordons" / "acme" / "trees"
    until("its files are gone", lambda: not trees.exists())
    text(node, "acme-probe", "/shared")
    assert own["pid"] not in pids_of(node, "acme-probe")
    node.cli("tenants", "set", "acme", "--cordon", "tenant")
    text(node, "acme-probe", "/behind")
    own = own_worker(node, "acme")
    assert own is not None
    until("no other worker has it", lambda: pids_of(node, "acme-probe") == {own["pid"]})
    said = printed(node)
    for path in ("/before", "/shared", "/behind"):
        assert f"seen {path}" in said


def control_of(node: Node) -> int | None:
    return next((one.pid for one in node.children() if "control_process" in one.command), None)


def test_a_volume_goes_with_its_app_behind_the_cordon_and_back(node):
    node.cli("tenants", "create", "keeper")
    node.cli("volumes", "create", "notes", "--size", "20", "--tenant", "keeper")
    node.cli("deploy", str(APPS / "notes"), "--name", "notes", "--tenant", "keeper")
    places = {
        "shared": node.data_dir / "volumes" / "keeper" / "notes",
        "tenant": node.data_dir / "volumes-apart" / "keeper" / "notes",
    }
    added, failed, ended = [], [], threading.Event()

    def add() -> None:
        while not ended.is_set():
            answer = get(node, "notes", f"/add?text=n{len(added)}", accept="application/json")
            (added if answer.status == 200 else failed).append(answer.text)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for cordon in ("tenant", "shared", "tenant"):
            control = until("control runs", lambda: control_of(node))
            node.cli("tenants", "set", "keeper", "--cordon", cordon)
            # Whether it is moved by this control or by the next one.
            os.kill(control, signal.SIGKILL)
            until(f"the volume is {cordon}'s", places[cordon].exists)
            more = len(added) + 5
            until("rows are added there", lambda more=more: len(added) >= more)
            assert not places["tenant" if cordon == "shared" else "shared"].exists()
    finally:
        ended.set()
        adding.join()
    # A machine that is busy enough starts no worker in time; nothing else goes wrong.
    codes = {json.loads(answer)["error"]["code"] for answer in failed}
    assert codes <= {"worker_unavailable", "overloaded"}, failed
    assert int(text(node, "notes", "/count")) == len(added)
    node.cli("tenants", "delete", "keeper", "--force", "--yes")
    assert not places["tenant"].parent.exists()


def test_one_app_asks_for_it_and_the_last_one_ends_it(node, tmp_path):
    manifest = '[isolation]\ncordon = "tenant"\n'
    before = len(node.workers())
    wary = folder(tmp_path / "wary", {"isopod.toml": manifest})
    hello(wary, "wary")
    node.cli("deploy", str(wary), "--name", "wary")
    node.cli("deploy", str(hello(tmp_path / "open", "open")), "--name", "open")
    assert (text(node, "wary"), text(node, "open")) == ("wary", "open")
    own = own_worker(node, "default")
    assert own is not None
    assert pids_of(node, "wary") == {own["pid"]}
    assert own["pid"] not in pids_of(node, "open")
    # What others read of it is what hands its requests over.
    more = '[env]\nKEY = "a secret of wary"\n'
    job = '[[jobs]]\nname = "tidy"\nschedule = "0 0 1 1 *"\npath = "/"\n'
    (wary / "isopod.toml").write_text(manifest + more + job)
    node.cli("deploy", str(wary), "--name", "wary")
    routes = node.data_dir / "routes"
    assert not any(b"a secret of wary" in path.read_bytes() for path in routes.iterdir())
    assert text(node, "wary") == "wary"
    node.cli("jobs", "run", "wary", "tidy")
    assert pids_of(node, "wary") == {own["pid"]}
    node.cli("delete", "wary", "--yes")
    until("its worker has ended", lambda: len(node.workers()) == before)
    assert get(node, "wary").status == 404
    assert text(node, "open") == "open"


def test_commands_run_in_the_tenants_own_worker(node, tmp_path):
    tell = 'python -c \'import os; print(os.environ["KEY"], os.environ["WHERE"])\''
    manifest = (
        '[isolation]\ncordon = "tenant"\n[env]\nKEY = "kept"\nWHERE = "apart"\n'
        f"[deploy]\npost_deploy = [{json.dumps(tell)}]\n"
        '[[jobs]]\nname = "tell"\nschedule = "0 0 1 1 *"\n'
        f"command = {json.dumps(tell)}\n"
    )
    moved = folder(tmp_path / "moved", {"isopod.toml": manifest})
    hello(moved, "moved")
    node.cli("tenants", "create", "initech")
    # The first app of its tenant behind a cordon: the worker is started for the command.
    assert own_worker(node, "initech") is None
    node.cli("deploy", str(moved), "--name", "moved", "--tenant", "initech")
    own = own_worker(node, "initech")
    assert own is not None
    log = node.data_dir / "cordons" / "initech" / "logs" / "moved.jsonl"
    assert log.read_text().count("kept apart") == 1
    node.cli("jobs", "run", "moved", "tell", "--tenant", "initech")
    assert log.read_text().count("kept apart") == 2
    assert text(node, "moved") == "moved"
    again = own_worker(node, "initech")
    assert again is not None
    assert again["pid"] == own["pid"]
    (moved / "isopod.toml").write_text(manifest.replace("print(os", "1 / 0; print(os"))
    failed = Failed(node, "deploy", str(moved), "--name", "moved", "--tenant", "initech")
    assert failed.code == "command_failed"
    assert text(node, "moved") == "moved"
    node.cli("delete", "moved", "--tenant", "initech", "--yes")
    until("its worker has ended", lambda: own_worker(node, "initech") is None)


def test_a_node_that_is_started_again_has_them_again_and_no_more_than_it_may(tmp_path):
    data = tmp_path / "data"
    with up(data, workers=1, extra_env={"ISOPOD_CORDONS": "1"}) as node:
        node.cli("tenants", "create", "acme", "--cordon", "tenant", "--quota", "max_instances=3")
        app = str(hello(tmp_path / "app"))
        node.cli("deploy", app, "--name", "shop", "--tenant", "acme")
        assert text(node, "shop") == "hello"
        refused = node.run("tenants", "create", "zoo", "--cordon", "tenant")
        assert (refused.returncode, "quota_exceeded" in refused.stderr) == (2, True)
        (tmp_path / "app" / "isopod.toml").write_text('[isolation]\ncordon = "tenant"\n')
        refused = node.run("deploy", app, "--name", "other")
        assert "quota_exceeded" in refused.stderr
        assert get(node, "other").status == 404
    with up(data, workers=1, extra_env={"ISOPOD_CORDONS": "1"}) as node:
        assert own_worker(node, "acme") is not None  # before it says that it is up
        assert text(node, "shop") == "hello"
