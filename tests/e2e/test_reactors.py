"""Go programs, and reactors in C and Rust, on a real node: built, deployed, called, refused."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.nodes import Failed, folder, get, log, messages, text, until, up
from tests.unit.runtimes.reactors import c_module, rust_module

from tools.http_calls import Caller
from tools.node import Node

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GUESTS = ROOT / "tests" / "guests" / "reactors"


@pytest.fixture(scope="module")
def node(prepared_go: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("reactors") / "data", workers=2) as node:
        yield node


def served(node: Node, app: str, status: int = 200) -> None:
    """Until its module is compiled beside the worker, which a busy machine takes long for."""
    until("its module", lambda: get(node, app).status == status)


def test_a_go_program_is_built_deployed_and_answers(node):
    done = node.run("deploy", str(EXAMPLES / "go-hello"), "--name", "gopher", "--strict")
    assert done.returncode == 0, done.stderr
    assert ". (go)" in done.stderr and "MiB built by go1." in done.stderr
    assert "snapshot      sound" in done.stderr and "private" in done.stderr
    served(node, "gopher")
    assert text(node, "gopher") == "Hello from Go!\n"
    assert get(node, "gopher", "/hello/Ada").json() == {"hello": "Ada", "greeting": ""}
    assert text(node, "gopher", "/squares") == "[0 1 4 9 16 25 36 49 64 81]\n"
    assert text(node, "gopher", "/stream") == "one\ntwo\nthree\n"
    assert get(node, "gopher", "/nowhere").status == 404
    with Caller(node.gateway_port, "gopher") as caller:
        body, sent = "köln " * 60_000, "KÖLN " * 60_000
        assert caller.call("/upper", "POST", body.encode()).text == sent
        assert caller.call("/", "HEAD").body == b""
    node.cli("sleep", "gopher")
    assert text(node, "gopher") == "Hello from Go!\n"  # restored
    shown = node.json("app", "gopher")["app"]
    assert shown["runtime"] == "go" and shown["cold_starts"] >= 2


def test_settings_reach_it_when_it_starts_and_a_new_one_needs_no_build(node):
    done = node.run("deploy", str(EXAMPLES / "go-hello"), "--name", "set", "--env", "GREETING=you")
    assert "unwarmed" in done.stderr and "the app has settings" in done.stderr
    served(node, "set")
    assert get(node, "set", "/hello/x").json()["greeting"] == "you"
    again = node.run("deploy", str(EXAMPLES / "go-hello"), "--name", "set", "--env", "GREETING=me")
    assert "As built before" in again.stderr
    assert get(node, "set", "/hello/x").json()["greeting"] == "me"


def test_what_a_program_does_wrong_is_an_answer_and_a_line_in_the_log(node, tmp_path):
    app = tmp_path / "kitchen"
    shutil.copytree(GUESTS / "kitchen_go", app)
    node.cli("deploy", str(app), "--env", "KEY=k")
    served(node, "kitchen", 201)
    for path in ("/panic", "/deadlock", "/exit"):
        assert get(node, "kitchen", path).status in (500, 502), path
        assert get(node, "kitchen").status == 201
    said = messages(node, "kitchen")
    assert "panic: assignment to entry in nil map" in said and "main.go:" in said
    assert "deadlock!" in said and "exited with status 3" in said
    assert {one["stream"] for one in log(node, "kitchen")} >= {"isopod", "stderr"}
    one, two = (text(node, "kitchen", "/random").split()[:3] for _ in range(2))
    node.cli("sleep", "kitchen")
    three = text(node, "kitchen", "/random").split()[:3]
    assert not {*one} & {*two} and not {*three} & {*one, *two}


@pytest.mark.parametrize(
    ("main", "code", "message"),
    [
        ("func main() {\n\tnothing()\n}\n", "app_syntax_error", "main.go:4: undefined: nothing"),
        (
            'import "net/http"\n\nfunc main() {\n\thttp.ListenAndServe(":80", nil)\n}\n',
            "app_syntax_error",
            "main.go:6: the program listens on a port",
        ),
    ],
)
def test_a_program_that_is_none_is_refused_with_its_line(node, tmp_path, main, code, message):
    files = {"go.mod": "module x\n\ngo 1.24\n", "main.go": f"package main\n\n{main}"}
    failed = Failed(node, "deploy", str(folder(tmp_path / "bad", files)))
    assert (failed.code, failed.status) == (code, 1)
    assert message in failed.message


def test_a_reactor_in_c_starts_from_what_its_setup_made(node, tmp_path):
    app = tmp_path / "primes"
    app.mkdir()
    c_module(EXAMPLES / "c-reactor" / "app.c", app / "app.wasm")
    done = node.run("deploy", str(app), "--strict")
    assert "app.wasm (reactor)" in done.stderr and "sound" in done.stderr, done.stderr
    for _ in range(2):
        assert text(node, "primes", "/prime/999983") == "999983 is prime\n"
        assert text(node, "primes", "/prime/999981") == "999981 is composite\n"
        node.cli("sleep", "primes")
    with Caller(node.gateway_port, "primes") as caller:
        body = os.urandom(1 << 20)
        assert caller.call("/", "POST", body).body == body
    assert messages(node, "primes").count("sieved") == 0  # at its deploy, and never again


def test_a_volume_has_one_writer_over_both_workers_and_outlives_instances_and_versions(
    node, tmp_path
):
    app = tmp_path / "counts"
    app.mkdir()
    c_module(GUESTS / "kitchen.c", app / "app.wasm")
    node.cli("deploy", str(app))
    served(node, "counts")
    assert "No such file" in text(node, "counts", "/count")
    (app / "isopod.toml").write_text('[[volumes]]\nname = "data"\nmount = "/data"\n')
    node.cli("volumes", "create", "data", "--size", "16")
    done = node.run("deploy", str(app), "--allow-new", "--strict")
    assert done.returncode == 0, done.stderr
    served(node, "counts")
    with ThreadPoolExecutor(8) as pool:  # over both workers
        counted = [pool.submit(text, node, "counts", "/count") for _ in range(8)]
        assert sorted(int(one.result()) for one in counted) == [*range(1, 9)]
    node.cli("sleep", "counts")
    assert text(node, "counts", "/count") == "9"
    node.cli("deploy", str(app), "--env", "KEY=new")
    assert text(node, "counts", "/count") == "10"


def test_a_reactor_in_rust_is_one_as_well(node, tmp_path):
    app = tmp_path / "crab"
    app.mkdir()
    rust_module(EXAMPLES / "rust-hello" / "src" / "lib.rs", app / "hello.wasm")
    node.cli("deploy", str(app), "--env", "GREETING=moin")
    assert text(node, "crab") == "moin\n"
    assert text(node, "crab", "/square/99999") == "9999800001\n"
    assert get(node, "crab", "/square/100000").status == 404


def test_a_module_that_nobody_can_run_is_refused_and_what_served_serves_on(node, tmp_path):
    app = tmp_path / "steady"
    app.mkdir()
    c_module(EXAMPLES / "c-reactor" / "app.c", app / "app.wasm")
    node.cli("deploy", str(app))
    source = (EXAMPLES / "c-reactor" / "app.c").read_text()
    bad = tmp_path / "bad.c"
    bad.write_text(
        source.replace(
            "void isopod_setup(void) {",
            '__attribute__((import_module("env"), import_name("socket"))) int open_socket(void);\n'
            "void isopod_setup(void) { open_socket();",
        )
    )
    c_module(bad, app / "app.wasm")
    failed = Failed(node, "deploy", str(app))
    assert failed.code == "module_invalid" and "env.socket" in failed.message
    assert text(node, "steady", "/prime/7") == "7 is prime\n"
    (app / "app.wasm").write_bytes(b"\0asm\x0d\0\1\0")
    (app / "isopod.toml").write_text('[app]\nruntime = "reactor"\n')
    failed = Failed(node, "deploy", str(app))
    assert failed.code == "app_not_detected" and "isopod_handle" in failed.message


def test_the_templates_are_deployed_as_they_are(node, tmp_path):
    node.cli("init", "--template", "go", str(tmp_path / "begun"))
    node.cli("deploy", str(tmp_path / "begun"))
    served(node, "begun")
    assert text(node, "begun") == "Hello from Go!\n"
    node.cli("init", "--template", "rust", str(tmp_path / "crate"))
    failed = Failed(node, "deploy", str(tmp_path / "crate"))
    assert failed.code == "app_not_detected"  # nothing is built there yet
    rust_module(tmp_path / "crate" / "src" / "lib.rs", tmp_path / "crate" / "hello.wasm")
    node.cli("deploy", str(tmp_path / "crate"))
    assert text(node, "crate") == "Hello from Rust!\n"
