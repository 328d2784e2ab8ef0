"""WebSockets of real apps on a real node: all that may go over one, and faults at both ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.nodes import APPS, PATIENCE_S, dial, folder, get, hello, messages, until, up
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tools.node import ROOT, Node

HIBERNATES = '[app]\nname = "dozing"\n[scaling]\nidle_s = 0.3\n[websocket]\nhibernate = true\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    root = tmp_path_factory.mktemp("sockets")
    with up(root / "data") as one:
        shutil.copytree(APPS / "sockets", root / "sockets")
        one.cli("deploy", "--name", "sockets", str(root / "sockets"))
        shutil.copytree(APPS / "sockets", root / "dozing")
        (root / "dozing" / "isopod.toml").write_text(HIBERNATES)
        one.cli("deploy", str(root / "dozing"))
        yield one


def instances(node: Node, app: str) -> int:
    return sum(one["app"] == app for one in node.instances())


def awake(node: Node, app: str) -> None:
    """So that its short deadline is for what it does, and not for its start on a busy machine."""
    until("it is awake", lambda: get(node, app).status == 200)


def test_messages_of_both_kinds_come_back(node):
    with dial(node, "/echo", max_size=None) as client:
        for message in ("hi", "é😀", "", b"", bytes(range(256)), os.urandom(1_000_000)):
            client.send(message)
            assert client.recv(timeout=PATIENCE_S) == message
        assert client.ping().wait(PATIENCE_S)


def test_the_app_sees_the_handshake_and_chooses_the_subprotocol(node):
    with dial(node, "/about?x=%20y", subprotocols=["one", "two"]) as client:
        assert client.subprotocol == "two"
        seen = json.loads(client.recv(timeout=PATIENCE_S))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert (client.close_code, client.close_reason) == (4000, "that is all")
    assert seen["type"] == "websocket" and seen["scheme"] == "ws"
    assert (seen["path"], seen["query"]) == ("/about", "x=%20y")
    headers = seen["headers"]
    assert headers["host"].startswith("sockets.localhost")
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert "connection" not in headers and "upgrade" not in headers


@pytest.mark.parametrize(
    ("path", "status"),
    [("/forbidden", 403), ("/refused", 451), ("/raises_first", 502)],
)
def test_an_app_that_does_not_take_it_gives_a_response(node, path: str, status: int):
    with pytest.raises(InvalidStatus) as found:
        dial(node, path)
    response = found.value.response
    assert response.status_code == status
    if status == 451:
        assert (response.body, response.headers["x-why"]) == (b"nope", "because")
    if status == 502:
        assert response.headers["x-isopod-error"] == "guest_failed"


def test_what_takes_no_websockets_says_so(node, tmp_path: Path):
    node.cli("deploy", "--name", "wsgi", str(hello(tmp_path / "wsgi")))
    node.cli("deploy", "--name", "site", str(folder(tmp_path / "site", {"index.html": "hi"})))
    for app in ("wsgi", "site"):
        with pytest.raises(InvalidStatus) as found:
            dial(node, "/echo", app)
        assert found.value.response.status_code == 501
        assert found.value.response.headers["x-isopod-error"] == "websocket_unsupported"
    with pytest.raises(InvalidStatus) as found:
        dial(node, "/echo", "nobody")
    assert found.value.response.status_code == 404


def test_a_handshake_with_a_body_or_of_http_1_0_is_none(node):
    """A body would be taken for frames, by us and not by a proxy before us."""
    handshake = (
        "GET /echo HTTP/%s\r\nHost: sockets.localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s"
    )
    chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    after = "GET /after HTTP/1.1\r\nHost: sockets.localhost\r\nConnection: close\r\n\r\n"
    for version, rest in (
        ("1.1", "Content-Length: 5\r\n\r\nhello" + after),
        ("1.1", chunked + after),
        ("1.0", "\r\n"),
    ):
        with socket.create_connection(("127.0.0.1", node.gateway_port), timeout=PATIENCE_S) as link:
            link.sendall((handshake % (version, rest)).encode())
            said = b"".join(iter(lambda link=link: link.recv(65536), b""))
        assert said.split()[1] == b"400"
        assert said.count(b"\r\ndate: ") == (2 if version == "1.1" else 1), said


@pytest.mark.parametrize(("path", "code"), [("/raises", 1011), ("/returns", 1000)])
def test_an_app_that_ends_closes_it(node, path: str, code: int):
    with dial(node, path) as client:
        if path == "/raises":
            client.send("x")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert client.close_code == code
    if path == "/raises":
        until("its traceback", lambda: "LookupError: after accept" in messages(node, "sockets"))
    assert get(node, "sockets").status == 200


def test_faults_of_the_app_end_its_socket_and_no_other(node):
    with dial(node, "/echo") as other:
        with dial(node, "/after_close") as client:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=PATIENCE_S)
            assert client.close_code == 4001
        until("its log", lambda: "send after close" in messages(node, "sockets"))
        other.send("still there")
        assert other.recv(timeout=PATIENCE_S) == "still there"


def test_a_client_that_vanishes_is_seen_by_the_app(node):
    with dial(node, "/echo") as client:
        client.socket.shutdown(socket.SHUT_RDWR)
    until("the app's line", lambda: "closed 1006" in messages(node, "sockets"))


def test_an_app_that_does_not_ask_loses_a_client_that_vanished_all_the_same(node, tmp_path: Path):
    shutil.copytree(APPS / "sockets", tmp_path / "deaf")
    node.cli("deploy", "--name", "deaf", str(tmp_path / "deaf"))

    def states() -> list[str]:
        return [one["state"] for one in node.instances() if one["app"] == "deaf"]

    with dial(node, "/deaf", "deaf") as client:
        assert states() == ["busy"]
        client.socket.shutdown(socket.SHUT_RDWR)
    until("its place is free", lambda: states() == ["idle"])


def test_a_client_that_reads_nothing_slows_the_app(node):
    with dial(node, "/flood", max_queue=1) as client:
        client.recv(timeout=PATIENCE_S)
        client.socket.shutdown(socket.SHUT_RDWR)
    said = until(
        "the count",
        lambda: [
            line for line in messages(node, "sockets").splitlines() if line.startswith("flooded")
        ],
    )
    assert int(said[0].split()[1]) < 900


def test_many_sockets_share_an_instance(node):
    def one(number: int) -> None:
        with dial(node, "/echo") as client:
            for turn in range(5):
                client.send(f"{number}.{turn}")
                assert client.recv(timeout=PATIENCE_S) == f"{number}.{turn}"

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(one, range(40)))


def test_a_handler_that_computes_for_ever_ends_its_instance(node, tmp_path: Path):
    shutil.copytree(APPS / "sockets", tmp_path / "spins")
    (tmp_path / "spins" / "isopod.toml").write_text("[limits]\ndeadline_ms = 2000\n")
    node.cli("deploy", "--name", "spins", str(tmp_path / "spins"))
    awake(node, "spins")
    with dial(node, "/spin", "spins") as client:
        client.send("go")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert client.close_code == 1011
    until("the reason", lambda: "deadline_exceeded" in messages(node, "spins"))


def test_an_app_that_never_takes_it_ends_at_its_deadline(node, tmp_path: Path):
    shutil.copytree(APPS / "sockets", tmp_path / "silent")
    (tmp_path / "silent" / "isopod.toml").write_text("[limits]\ndeadline_ms = 1000\n")
    node.cli("deploy", "--name", "silent", str(tmp_path / "silent"))
    awake(node, "silent")
    with pytest.raises(InvalidStatus) as found:
        dial(node, "/silent", "silent").__enter__()
    assert found.value.response.status_code == 504


# -- hibernation ------------------------------------------------------------------------------


def test_a_socket_outlives_its_instance_and_goes_on_where_it_was(node):
    with dial(node, "/count", "dozing") as client:
        said = []
        for text in ("a", "b", "c"):
            client.send(text)
            said.append(json.loads(client.recv(timeout=PATIENCE_S)))
            until("its instance is gone", lambda: instances(node, "dozing") == 0)
            assert client.ping().wait(PATIENCE_S)
    assert [one["number"] for one in said] == [1, 2, 3]
    assert [one["got"] for one in said] == ["a", "b", "c"]
    assert [one["resumed"] for one in said] == [False, True, True]


def test_what_was_attached_can_be_taken_away(node):
    with dial(node, "/count", "dozing") as client:
        for text, number in (("a", 1), ("forget", 2), ("b", 1)):
            client.send(text)
            assert json.loads(client.recv(timeout=PATIENCE_S))["number"] == number
            until("its instance is gone", lambda: instances(node, "dozing") == 0)


def test_more_than_2_kib_is_not_attached(node):
    with dial(node, "/attach_much", "dozing") as client:
        assert "2048 is the most" in client.recv(timeout=PATIENCE_S)


def test_without_being_asked_to_no_socket_hibernates(node):
    with dial(node, "/count") as client:
        client.send("a")
        client.recv(timeout=PATIENCE_S)
        with dial(node, "/count", "dozing") as dozing:
            dozing.send("x")
            dozing.recv(timeout=PATIENCE_S)
            until("the other's instance is gone", lambda: instances(node, "dozing") == 0)
        client.send("b")
        said = json.loads(client.recv(timeout=PATIENCE_S))
        assert (said["number"], said["resumed"]) == (2, False)


def test_a_new_version_takes_over_what_sleeps_and_closes_the_rest(node, tmp_path: Path):
    for name, text in (("dozing", HIBERNATES), ("sockets", "")):
        shutil.copytree(APPS / "sockets", tmp_path / name)
        (tmp_path / name / "isopod.toml").write_text(text)
        (tmp_path / name / "new.py").write_text("")
    with dial(node, "/count", "dozing") as dozing, dial(node, "/count") as client:
        for one in (dozing, client):
            one.send("a")
            one.recv(timeout=PATIENCE_S)
        until("it sleeps", lambda: instances(node, "dozing") == 0)
        node.cli("deploy", "--name", "dozing", str(tmp_path / "dozing"))
        dozing.send("b")
        assert json.loads(dozing.recv(timeout=PATIENCE_S))["number"] == 2
        node.cli("deploy", "--name", "sockets", str(tmp_path / "sockets"))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert client.close_code == 1012


def test_a_node_that_stops_tells_its_clients_to_come_again(tmp_path: Path):
    shutil.copytree(APPS / "sockets", tmp_path / "sockets")
    with up(tmp_path / "data") as node:
        node.cli("deploy", "--name", "sockets", str(tmp_path / "sockets"))
        with dial(node, "/echo") as client:
            client.send("x")
            client.recv(timeout=PATIENCE_S)
            node.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=PATIENCE_S)
            assert client.close_code == 1012
        assert node.process.wait(PATIENCE_S) == 0


def test_the_example_is_a_chat_over_all_workers(tmp_path: Path):
    with up(tmp_path / "data", workers=2) as node:
        node.cli("volumes", "create", "chat")
        node.cli("deploy", "--name", "chat", str(ROOT / "examples" / "starlette-chat"))
        assert "<form>" in get(node, "chat").text
        with contextlib.ExitStack() as stack:
            room = [stack.enter_context(dial(node, "/chat", "chat")) for _ in range(8)]
            for number, client in enumerate(room):
                client.send(f"hello from {number}")
                for other in room:
                    assert other.recv(timeout=PATIENCE_S) == f"hello from {number}"
        with dial(node, "/chat", "chat") as late:
            said = [late.recv(timeout=PATIENCE_S) for _ in range(8)]
        assert said == [f"hello from {number}" for number in range(8)]
