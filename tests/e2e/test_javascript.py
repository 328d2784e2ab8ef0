"""JavaScript apps on a real node: bundled, deployed, called; what is refused, and how."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import PATIENCE_S, Failed, dial, folder, get, messages, text, until, up
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tools.http_calls import Caller
from tools.node import Node

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def node(prepared_javascript: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("javascript") / "data") as node:
        yield node


def test_hono_is_installed_from_its_lock_file_and_answers(node):
    done = node.run("deploy", str(EXAMPLES / "hono-hello"), "--name", "hono")
    assert done.returncode == 0, done.stderr
    assert "(javascript)" in done.stderr and "1 npm package" in done.stderr
    assert "sound" in done.stderr
    assert text(node, "hono") == "Hello Hono\n"
    answer = get(node, "hono", "/users/7?q=%C3%A4")
    assert (answer.json(), answer["X-Powered-By"]) == ({"id": "7", "q": "ä"}, "Hono")
    assert get(node, "hono", "/nowhere").status == 404
    assert text(node, "hono", "/stream") == "one\ntwo\nthree\n"
    failed = get(node, "hono", "/error")
    assert (failed.status, failed.text) == (500, "failed: on purpose\n")
    part = b"--b\r\nContent-Disposition: form-data; "
    form = part + b'name="name"\r\n\r\nM\xc3\xbcller\r\n' + part
    form += b'name="file"; filename="a.txt"\r\n\r\nx\r\ny\r\n--b--'
    with Caller(node.gateway_port, "hono") as caller:
        echoed = caller.call("/echo", "POST", b'{"a": [1]}', Content_Type="application/json")
        assert echoed.json() == {"got": {"a": [1]}}
        kind = "multipart/form-data; boundary=b"
        sent = caller.call("/form", "POST", form, Content_Type=kind)
        assert sent.json() == {"name": "Müller", "file": {"name": "a.txt", "text": "x\r\ny"}}


def test_a_worker_has_its_settings_sleeps_and_works_on_after_its_response(node):
    node.cli("deploy", str(EXAMPLES / "js-worker"), "--name", "w", "--env", "GREETED=you")
    assert text(node, "w") == "Hello you\n"
    one, two = (get(node, "w", "/random").json()["id"] for _ in range(2))
    assert one != two
    assert text(node, "w", "/sleep?ms=30") == "slept 30 ms\n"
    assert text(node, "w", "/later") == "now\n"
    until("the line", lambda: "done after the response" in messages(node, "w"))
    with Caller(node.gateway_port, "w") as caller:
        body = "ä streams through" * 20_000
        assert caller.call("/upper", "POST", body.encode()).text == body.upper()
    node.cli("sleep", "w")
    assert text(node, "w") == "Hello you\n"  # restored


def test_an_instance_that_rests_costs_less_and_answers_as_before(node):
    node.cli("deploy", str(EXAMPLES / "js-worker"), "--name", "rests")
    assert text(node, "rests") == "Hello world\n"

    def costs() -> list[int]:
        return [one["private_bytes"] for one in node.instances() if one["app"] == "rests"]

    ran = costs()
    until("less", lambda: sum(costs()) < sum(ran) - (100 << 10), within_s=60)
    assert text(node, "rests") == "Hello world\n"


def test_deadlines_and_memory_end_an_instance_and_the_next_request_has_a_new_one(node, tmp_path):
    source = """
    export default { async fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === "/loop") for (;;) {}
      if (pathname === "/flood") { const f = () => Promise.resolve().then(f); await f(); }
      if (pathname === "/never") await new Promise(() => {});
      if (pathname === "/memory") { const a = []; for (;;) a.push(new Uint8Array(1e6).fill(1)); }
      if (pathname === "/throw") throw new TypeError("seen in the log");
      return new Response("fine"); } }
    """
    files = {"worker.js": source, "isopod.toml": "[limits]\ndeadline_ms = 2000\nmemory_mib = 32\n"}
    node.cli("deploy", str(folder(tmp_path / "faults", files)), "--name", "js-faults")
    until("its first start", lambda: get(node, "js-faults").status == 200)
    for path in ("/loop", "/never"):
        assert get(node, "js-faults", path).status == 504, path
        assert text(node, "js-faults") == "fine"
    for path, status in (("/memory", 507), ("/throw", 502)):
        assert get(node, "js-faults", path).status == status, path
        assert text(node, "js-faults") == "fine"
    # Of its two limits the first that it meets.
    assert get(node, "js-faults", "/flood").status in (504, 507)
    assert text(node, "js-faults") == "fine"
    said = messages(node, "js-faults")
    assert "deadline_exceeded" in said and "memory_limit_exceeded" in said
    assert "TypeError: seen in the log" in said and "worker.js:8" in said


LOCK = {"name": "x", "lockfileVersion": 3, "packages": {"": {"dependencies": {"hono": "1"}}}}
# On the node and readable to a build, as the system's libraries are; as a program it is none.
MACHINES = str(Path("/usr/lib/os-release").resolve())
FETCH = "export default { fetch: () => new Response('x') }\n"


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"index.js": f"import fs from 'node:fs';\nimport p from 'path';\nfs; p;\n{FETCH}"},
         "dependency_native_only", "'node:fs' (index.js:1), 'path' (index.js:2)"),
        ({"index.js": f"import {{ x }} from 'left-pad';\nx;\n{FETCH}"},
         "dependency_not_found", "'left-pad' (index.js:1)"),
        ({"index.js": "export default {\n  fetch( {\n"}, "app_syntax_error", "index.js:3"),
        ({"index.js": FETCH, "package.json": '{"dependencies": {"hono": "4"}}', "yarn.lock": ""},
         "dependency_invalid", "no package-lock.json (yarn.lock is not read)"),
        ({"index.js": FETCH, "package.json": '{"dependencies": {"hono": "4"}}',
          "package-lock.json": "{}"}, "dependency_invalid", "not a lock file"),
        ({"index.js": FETCH, "package.json": '{"dependencies": {"hono": "4"}}',
          "package-lock.json": json.dumps(LOCK)}, "dependency_invalid", "npm failed"),
        ({"index.js": "await new Promise(() => {});\n" + FETCH}, "app_failed_to_start",
         "never settles"),
        ({"index.js": "export default { get() {} }"}, "entrypoint_not_callable",
         "no function fetch"),
        ({"index.js": "throw new Error('at load');\n" + FETCH}, "app_failed_to_start", "at load"),
        ({"index.js": f"import s from '{MACHINES}' with {{type: 'text'}};\ns;\n{FETCH}"},
         "package_unsafe", f"imports '{MACHINES}'"),
        ({"index.ts": FETCH, "tsconfig.json": json.dumps({"extends": MACHINES})},
         "package_unsafe", MACHINES),
        ({"index.js": f"export const big = `{'x' * (11 << 20)}`;\nglobalThis.b = big;\n{FETCH}"},
         "package_too_large", "of at most"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)  # fmt: skip
def test_what_cannot_be_deployed_is_named(node, tmp_path, files, code, message):
    failed = Failed(node, "deploy", str(folder(tmp_path / "bad", files)), "--name", "bad")
    assert (failed.code, message in failed.message) == (code, True), failed.err
    assert "PRETTY_NAME" not in failed.err  # of MACHINES


def test_templates_are_deployed_as_they_are_written(node, tmp_path):
    for template in ("worker", "hono"):
        node.cli("init", "--template", template, str(tmp_path / template))
        node.cli("deploy", str(tmp_path / template), "--name", f"new-{template}")
        assert text(node, f"new-{template}").startswith("Hello")


SOCKETS = """
import { Hono } from "hono";
import { upgradeWebSocket } from "hono/cloudflare-workers";

const app = new Hono();
app.get("/hono", upgradeWebSocket(() => ({
  onMessage: (event, ws) => ws.send(`hono says ${event.data}`),
  onClose: (event) => console.log("gone", event.code),
})));
app.get("/count", (c) => {
  const [client, server] = Object.values(new WebSocketPair());
  let { attachment: count } = c.executionCtx.webSocket;
  server.accept();
  server.addEventListener("message", async ({ data }) => {
    if (data === "bye") return server.close(4001, "as asked");
    server.serializeAttachment(++count);
    const made = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(data));
    server.send(`${count} ${new Uint8Array(made)[0]}`);
  });
  return new Response(null, { status: 101, webSocket: client });
});
app.get("/refused", (c) => c.text("not here", 451));
export default app;
"""


def test_websockets_are_taken_refused_and_sleep_without_their_instance(node, tmp_path):
    app = tmp_path / "sockets"
    shutil.copytree(EXAMPLES / "hono-hello", app)
    (app / "index.js").write_text(SOCKETS)
    (app / "isopod.toml").write_text("[scaling]\nidle_s = 0.3\n[websocket]\nhibernate = true\n")
    node.cli("deploy", str(app), "--name", "js-sockets")
    with dial(node, "/hono", "js-sockets") as client:
        client.send("hi")
        assert client.recv(timeout=PATIENCE_S) == "hono says hi"
    until("it is told", lambda: "gone 1000" in messages(node, "js-sockets"))
    with pytest.raises(InvalidStatus) as refused:
        dial(node, "/refused", "js-sockets")
    assert (refused.value.response.status_code, refused.value.response.body) == (451, b"not here")
    with dial(node, "/count", "js-sockets") as client:
        client.send("a")
        assert client.recv(timeout=PATIENCE_S) == "1 202"
        until("its instance is gone", lambda: not _live(node, "js-sockets"))
        client.send("a")
        assert client.recv(timeout=PATIENCE_S) == "2 202"
        client.send("bye")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert (client.close_code, client.close_reason) == (4001, "as asked")


def test_a_binding_keeps_values_on_its_volume(node, tmp_path):
    source = """
    export default { async fetch(request, env) {
      const count = Number(await env.KV.get("count")) + 1;
      await env.KV.put("count", String(count), { metadata: { at: "noon" } });
      const { keys } = await env.KV.list();
      return Response.json([count, keys]) } }
    """
    toml = '[[volumes]]\nname = "values"\nmount = "/kv"\n'
    app = folder(tmp_path / "counts", {"worker.js": source, "isopod.toml": toml})
    missing = Failed(node, "deploy", str(app), "--name", "counts")
    assert missing.code == "volume_not_found"
    node.cli("volumes", "create", "values", "--size", "64")
    node.cli("deploy", str(app), "--name", "counts")
    for count in (1, 2):
        listed = [{"name": "count", "metadata": {"at": "noon"}}]
        assert get(node, "counts").json() == [count, listed]
    node.cli("sleep", "counts")
    assert get(node, "counts").json()[0] == 3
    node.cli("volumes", "copy-out", "values", "/kv", str(tmp_path / "out"))
    (file,) = (tmp_path / "out").rglob("Y291bnQ=")
    assert file.read_bytes().endswith(b"3")


def _live(node: Node, app: str) -> list[dict[str, object]]:
    return [one for one in node.instances() if one["app"] == app]


def test_requests_are_metered_with_their_cpu(node, tmp_path):
    node.cli("deploy", str(folder(tmp_path / "metered", {"index.js": FETCH})))
    text(node, "metered")
    until("its usage", lambda: "metered" in node.cli("usage", "--json"))


class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).upper()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


def test_fetch_leaves_a_shut_in_worker_for_what_is_listed_alone(
    prepared_javascript, tmp_path_factory
):
    source = """
    export default { async fetch(request, env) {
      try { return new Response((await fetch(env.TO, { method: "POST", body: "asked" })).body) }
      catch (error) { return new Response(error.message) } } }
    """
    folder_of = tmp_path_factory.mktemp("fetching")
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = upstream.server_address[1]
    listed = f'[network]\nallow = ["127.0.0.1:{port}"]\n'
    grant = {"ISOPOD_EGRESS_PRIVATE": f"127.0.0.1:{port}"}
    to = ("--env", f"TO=http://127.0.0.1:{port}/")
    try:
        with up(folder_of / "data", extra_env=grant) as node:
            for name, toml in (("may", listed), ("may-not", "")):
                app = folder(folder_of / name, {"worker.js": source, "isopod.toml": toml})
                node.cli("deploy", str(app), *to)
            assert text(node, "may") == "ASKED"
            assert "isopod" in text(node, "may-not")
    finally:
        upstream.shutdown()
        upstream.server_close()
