"""The example that passes on a model's tokens, with a model of ours."""

from __future__ import annotations

import http.server
import json
import queue
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import PATIENCE_S, up

from tools.http_calls import Caller
from tools.node import ROOT, Node

EXAMPLE = ROOT / "examples" / "starlette-tokens"
WORDS = ["waiting", " is", " free", " é€"]
KEY = "k-77"


class Model(http.server.ThreadingHTTPServer):
    """Says the next word when the test lets it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ModelHandler)
        self.new()
        self.port = int(self.server_address[1])

    def new(self) -> None:
        """For a test: what another one said or left is not its."""
        self.go_on: queue.Queue[None] = queue.Queue()
        self.gone = threading.Event()


class ModelHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {KEY}":
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        go_on, gone = self.server.go_on, self.server.gone
        words = [*asked["messages"][0]["content"].split(), *WORDS]
        try:
            for word in words:
                go_on.get(timeout=PATIENCE_S)
                self.say(json.dumps({"choices": [{"delta": {"content": word}}]}))
            self.say("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, queue.Empty):
            gone.set()
            self.close_connection = True

    def say(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def node(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    base = tmp_path_factory.mktemp("model")
    app = Path(shutil.copytree(EXAMPLE, base / "tokens"))
    manifest = (app / "isopod.toml").read_text()
    manifest = manifest.replace("https://api.openai.com", f"http://localhost:{model.port}")
    manifest = manifest.replace("api.openai.com:443", f"localhost:{model.port}")
    (app / "isopod.toml").write_text(manifest)
    (base / "secret.env").write_text(f"MODEL_KEY={KEY}\n")
    grant = {"ISOPOD_EGRESS_PRIVATE": f"localhost:{model.port}"}
    with up(base / "data", workers=1, extra_env=grant) as node:
        node.cli("secrets", "set", "tokens", "--env-file", str(base / "secret.env"))
        node.cli("deploy", str(app), "--name", "tokens", "--strict")
        yield node


def test_each_token_reaches_the_client_before_the_model_says_the_next(node, model):
    model.new()
    heard = []
    with Caller(node.gateway_port, "tokens") as caller:
        pieces = caller.iter_pieces("/answer?q=you+said")
        for _ in ["you", "said", *WORDS]:
            model.go_on.put(None)  # only now: what is kept back somewhere is waited for in vain
            heard.append(json.loads(next(pieces).decode().removeprefix("data: ")))
        assert list(pieces) == []
    assert heard == ["you", "said", *WORDS]


def test_a_client_that_goes_ends_the_call_to_the_model(node, model):
    model.new()
    with Caller(node.gateway_port, "tokens") as caller:
        pieces = caller.iter_pieces("/answer?q=a+b+c")
        model.go_on.put(None)
        next(pieces)
    while not model.gone.wait(0.05):
        model.go_on.put(None)  # it notices when it says something
    with Caller(node.gateway_port, "tokens") as caller:
        assert caller.call("/").status == 200


def test_a_key_that_the_model_does_not_know_is_a_502(node, model, tmp_path):
    (tmp_path / "secret.env").write_text("MODEL_KEY=other\n")
    node.cli("secrets", "set", "tokens", "--env-file", str(tmp_path / "secret.env"))
    with Caller(node.gateway_port, "tokens") as caller:
        answer = caller.call("/answer?q=x")
    assert (answer.status, answer.text) == (502, "the model answered 401")
    (tmp_path / "secret.env").write_text(f"MODEL_KEY={KEY}\n")
    node.cli("secrets", "set", "tokens", "--env-file", str(tmp_path / "secret.env"))
