"""What an app may reach: its list, what is new in it, what its tenant may, and whom it trusts."""

from __future__ import annotations

import http.server
import json
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.e2e.nodes import PATIENCE_S, Failed, folder, get, refused, text, up
from tests.unit.host.certificates import Authority

from isopod.client import Client, find_node
from isopod.errors import UsageError
from isopod.settings import ClientSettings
from tools.node import ROOT, Node, command, environment

EXAMPLE = ROOT / "examples" / "flask-requests"
KEY = "k-1b9f"
APP = """
import socket
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    host, _, port = environ["PATH_INFO"][1:].partition(":")
    if not port:
        return [b"here"]
    try:
        with socket.create_connection((host, int(port)), timeout=60):
            return [b"connected"]
    except OSError as error:
        return [repr(error).encode()]
"""


class Rates(http.server.ThreadingHTTPServer):
    """The API of the example, by HTTPS with a certificate of `authority`."""

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), RatesHandler)
        context: ssl.SSLContext = authority.server(authority.issue("localhost"))
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.connections: set[tuple[str, int]] = set()
        self.port = int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A client that does not trust it hangs up."""


class RatesHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Rates

    def do_GET(self) -> None:
        self.server.connections.add(self.client_address)
        allowed = self.headers["authorization"] == f"Bearer {KEY}"
        asked = parse_qs(urlsplit(self.path).query)
        answer = {"base": asked["base"][0], "rates": {"USD": 1.25}} if allowed else {}
        body = json.dumps(answer).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def rates(authority: Authority) -> Iterator[Rates]:
    with Rates(authority) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def own(
    authority: Authority, rates: Rates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    base = tmp_path_factory.mktemp("egress")
    (base / "ca.pem").write_text(authority.pem)
    extra = {
        "ISOPOD_EGRESS_PRIVATE": f"*/localhost:{rates.port}",
        "ISOPOD_EXTRA_CA": str(base / "ca.pem"),
    }
    with up(base / "data", extra_env=extra) as node:
        yield node


def example(path: Path, rates: Rates) -> Path:
    """The example, with the address of this test's API in its manifest."""
    copy = Path(shutil.copytree(EXAMPLE, path))
    manifest = (copy / "isopod.toml").read_text()
    manifest = manifest.replace("https://api.example.com", f"https://localhost:{rates.port}")
    manifest = manifest.replace("api.example.com:443", f"localhost:{rates.port}")
    (copy / "isopod.toml").write_text(manifest)
    return copy


def set_secret(node: Node, app: str, name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text(f"{name}={value}\n")
    node.cli("secrets", "set", app, "--env-file", str(tmp_path / "secret.env"))


def deploy(node: Node, path: Path, *options: str) -> str:
    """What it said on standard error."""
    done = node.run("deploy", str(path), *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def listing(path: Path, *entries: str) -> Path:
    allow = json.dumps(list(entries))
    return folder(path, {"app.py": APP, "isopod.toml": f"[network]\nallow = {allow}\n"})


def test_the_example_asks_an_https_api_with_requests(own, rates, tmp_path):
    set_secret(own, "rates", "API_KEY", "wrong", tmp_path)
    said = deploy(own, example(tmp_path / "app", rates), "--name", "rates")
    assert f"+ connect to localhost:{rates.port}" in said
    answer = get(own, "rates", "/rates/EUR")
    assert (answer.status, "answered 401" in answer.text) == (502, True)
    set_secret(own, "rates", "API_KEY", KEY, tmp_path)
    rates.connections.clear()
    for _ in range(3):
        assert json.loads(text(own, "rates", "/rates/EUR")) == {
            "base": "EUR",
            "rates": {"USD": 1.25},
        }
    assert len(rates.connections) == 1  # kept open from one request to the next
    snapshot = json.loads(own.cli("app", "rates", "--json"))["snapshot"]
    assert snapshot["verdict"] == "sound", snapshot


def test_without_the_operators_authority_its_certificate_is_refused(rates, authority, tmp_path):
    extra = {"ISOPOD_EGRESS_PRIVATE": f"localhost:{rates.port}"}
    app = example(tmp_path / "app", rates)
    with up(tmp_path / "data", extra_env=extra) as node:
        set_secret(node, "rates", "API_KEY", KEY, tmp_path)
        deploy(node, app, "--name", "rates")
        answer = get(node, "rates", "/rates/EUR")
        assert answer.status == 502 and "CERTIFICATE_VERIFY_FAILED" in answer.text, answer.text
        # Or the app says for itself whom it trusts, and then these alone.
        (app / "ca.pem").write_text(authority.pem)
        deploy(node, app, "--name", "rates", "--env", "REQUESTS_CA_BUNDLE=/app/ca.pem")
        assert get(node, "rates", "/rates/EUR").status == 200


def test_an_authority_that_is_none_keeps_a_node_from_starting(tmp_path):
    (tmp_path / "node.toml").write_text('[node]\nextra_ca = "ca.pem"\n')  # beside it
    for text_of, why in (("", "holds no certificates"), (None, "No such file")):
        path = tmp_path / "ca.pem"
        path.unlink(missing_ok=True)
        if text_of is not None:
            path.write_text(text_of)
        status, said = refused(tmp_path / "data", "--config", str(tmp_path / "node.toml"))
        assert status == 2 and why in said and "extra_ca" in said


def test_a_deploy_that_asks_for_more_needs_to_be_allowed(own, rates, tmp_path):
    here = f"localhost:{rates.port}"
    deploy(own, folder(tmp_path / "grows", {"app.py": APP}))
    app = listing(tmp_path / "grows", here, "*.example.com:443")
    wider = Failed(own, "deploy", str(app))
    assert (wider.code, wider.status) == ("capabilities_new", 2)
    assert f"  + connect to {here}\n  + connect to *.example.com:443" in wider.err
    assert "--allow-new" in wider.hint and "Compiling" not in wider.err  # told before it is built
    assert "PermissionError" in text(own, "grows", f"/{here}")
    assert deploy(own, app, "--allow-new").count("+ connect to") == 2
    assert text(own, "grows", f"/{here}") == "connected"
    # What is covered by what there was is not new, and less is told.
    said = deploy(own, listing(tmp_path / "grows", "a.example.com:443"))
    assert f"- connect to {here}" in said and "- connect to *.example.com:443" in said
    assert "+" not in said
    # Also what was deployed before asks for more than what is live now.
    again = listing(tmp_path / "grows", here, "*.example.com:443")
    assert Failed(own, "deploy", str(again)).code == "capabilities_new"
    own.cli("rollback", "grows", "2")  # by its number: somebody means it
    assert text(own, "grows", f"/{here}") == "connected"


def test_a_tenants_policy_bounds_what_its_apps_list_and_reach(own, rates, tmp_path):
    here = f"localhost:{rates.port}"
    own.cli("tenants", "create", "acme", "--egress", here, "--egress", "*.example.com:*")
    own.cli("tenants", "create", "free")
    shown = json.loads(own.cli("tenants", "show", "acme", "--json"))
    assert shown["egress"] == [here, "*.example.com:*"]
    beyond = listing(tmp_path / "client", here, "api.example.org:443")
    refusal = Failed(own, "deploy", str(beyond), "--tenant", "acme")
    assert (refusal.code, refusal.status) == ("egress_refused", 2)
    assert "'client' lists api.example.org:443" in refusal.message
    app = listing(tmp_path / "client", here, "api.example.com:443")
    deploy(own, app, "--tenant", "acme")
    assert text(own, "client", f"/{here}") == "connected"
    # Narrowed, it holds at once, for what is deployed already too.
    own.cli("tenants", "set", "acme", "--egress", "none")
    assert "no app of this tenant may connect" in text(own, "client", f"/{here}")
    shown_app = own.cli("app", "client", "--tenant", "acme")
    assert "nothing" in shown_app and "connections_per_instance 64" in shown_app
    assert Failed(own, "deploy", str(app), "--tenant", "acme", "--env", "A=1").code == (
        "egress_refused"
    )
    (app / "isopod.toml").unlink()
    deploy(own, app, "--tenant", "free", "--name", "other")  # nobody else is touched
    deploy(own, app, "--tenant", "acme")
    assert Failed(own, "rollback", "client", "--tenant", "acme").code == "egress_refused"
    own.cli("tenants", "set", "acme", "--egress", "any")
    own.cli("rollback", "client", "--tenant", "acme")
    assert text(own, "client", f"/{here}") == "connected"
    for wrong in ("example.com", "*", "https://x:1", "10.0.0.1/8:1"):
        assert Failed(own, "tenants", "set", "acme", "--egress", wrong).code == "usage"
    assert json.loads(own.cli("tenants", "show", "acme", "--json"))["egress"] is None


def test_learning_proposes_just_what_an_app_used_and_then_the_list_holds(own, rates, tmp_path):
    here = f"localhost:{rates.port}"
    app = listing(tmp_path / "learner", "*.example.com:443")
    with subprocess.Popen(
        [*command(), "deploy", str(app), "--learn", "--learn-s", "300"],
        env=environment(own.data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as learning:
        try:
            said = _said(learning, "learning for")
            assert text(own, "learner", f"/{here}") == "connected"
            # Private addresses that the operator did not grant are refused as ever.
            assert "PermissionError" in text(own, "learner", "/10.0.0.1:1")
            _said(learning, "  10.0.0.1:1 (refused)")
        finally:
            learning.send_signal(signal.SIGINT)
        proposed, rest = learning.communicate(timeout=PATIENCE_S)
    assert learning.returncode == 0, said + rest
    assert proposed.endswith(f'[network]\nallow = [\n    "{here}",\n]\n'), proposed
    assert "refused all the same: 10.0.0.1:1" in rest
    assert "listed, and not needed meanwhile: *.example.com:443" in rest
    assert "PermissionError" in text(own, "learner", f"/{here}")


def _said(process: subprocess.Popen[str], expected: str) -> str:
    """Its standard error up to the line with that."""
    assert process.stderr is not None
    said = ""
    while expected not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_learning_is_within_the_tenants_policy_and_ends_by_itself(own, rates, tmp_path):
    here = f"localhost:{rates.port}"
    own.cli("tenants", "create", "bounded", "--egress", "*.example.com:443")
    app = folder(tmp_path / "curious", {"app.py": APP})
    done = own.run("deploy", str(app), "--tenant", "bounded", "--learn", "--learn-s", "1", "--json")
    assert done.returncode == 0, done.stderr
    learned = json.loads(done.stdout)["learned"]
    assert learned == {"until": 0.0, "allow": [], "unused": [], "refused": {}}
    with Client(find_node(ClientSettings.load(own.data_dir)), tenant="bounded") as client:
        client.begin_learning("curious", for_s=300)
        assert "no app of this tenant may connect" in text(own, "curious", f"/{here}")
        assert here in client.learning("curious")["refused"]
        with pytest.raises(UsageError, match="for 1 to 900 seconds"):
            client.begin_learning("curious", for_s=901)
        assert client.end_learning("curious")["until"] == 0
