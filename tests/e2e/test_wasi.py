"""Programs for WASI on a real node: deployed, asked, limited; and what cannot be deployed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from tests.c_modules import COMPILER, compiled
from tests.e2e.nodes import Failed, folder, get, log, messages, text, until, up

from isopod.errors import ModuleTooCostly
from isopod.model.tenant import DEFAULT_TENANT
from isopod.server.code_folder import Bounds, CodeFolder
from tools.http_calls import Caller
from tools.node import Node

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "guests" / "wcgi" / "cases.c"
NAMED = '[app]\nruntime = "wasi"\nentrypoint = "cases.wasm"\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("wasi") / "data", workers=2) as node:
        yield node


def program(path: Path, manifest: str = "", module: bytes | None = None) -> Path:
    made = folder(path, {"isopod.toml": manifest} if manifest else {})
    (made / "cases.wasm").write_bytes(compiled(CASES) if module is None else module)
    return made


def made(source: Path, target: Path) -> Path:
    """A folder with a Makefile, as its author would make it."""
    shutil.copytree(source, target)
    make(target)
    return target


def make(folder: Path) -> None:
    subprocess.run(["make", f"CC={' '.join(COMPILER)}"], cwd=folder, check=True)


def test_a_module_alone_in_a_folder_is_an_app_and_streams_both_ways(node, tmp_path):
    shown = node.run("deploy", str(program(tmp_path / "cases")), "--env", "GREETING=you")
    assert shown.returncode == 0, shown.stderr
    assert "cases.wasm (wasi)" in shown.stderr and "starts the program afresh" in shown.stderr
    assert text(node, "cases") == "hello\n"
    assert "GREETING=you\n" in text(node, "cases", "/env")
    found = dict(line.split("=", 1) for line in text(node, "cases", "/env?a=1").splitlines())
    assert found["HTTP_HOST"] == f"cases.localhost:{node.gateway_port}"
    assert found["QUERY_STRING"] == "a=1" and found["GATEWAY_INTERFACE"] == "CGI/1.1"
    with Caller(node.gateway_port, "cases") as caller:
        assert "HTTP_PROXY" not in caller.call("/env", Proxy="http://evil.test").text
        body = bytes(range(256)) * 8000
        assert caller.call("/echo", "POST", body).body == body
        assert caller.call("/status", "HEAD").status == 404
        assert len(caller.call("/large").body) == 4 << 20
    for _ in range(3):  # over both workers
        assert text(node, "cases", "/pieces") == "piece 0\npiece 1\npiece 2\n"
    until("its usage", lambda: "cases" in node.cli("usage", "--json"))


def test_what_goes_wrong_is_an_answer_and_a_line_in_the_log(node, tmp_path):
    limits = "[limits]\ndeadline_ms = 2000\nmemory_mib = 32\nmax_response_mib = 8\n"
    node.cli("deploy", str(program(tmp_path / "faults", NAMED + limits)), "--name", "faults")
    until("its machine code", lambda: get(node, "faults").status == 200)
    for path, status in (
        ("/loop", 504), ("/sleep", 504), ("/memory", 507), ("/trap", 502), ("/exit", 502),
        ("/nothing", 502), ("/body-first", 502), ("/half", 502), ("/nul", 502), ("/binary", 502),
        ("/endless-head", 502), ("/more-than-declared", 502), ("/%00", 400),
    ):  # fmt: skip
        assert get(node, "faults", path).status == status, path
        assert text(node, "faults") == "hello\n"
    get(node, "faults", "/stderr")
    said = messages(node, "faults")
    for line in ("where a header belongs", "middle of its headers", "ended with status 3",
                 "first line", "second", "deadline_exceeded", "memory_limit_exceeded"):  # fmt: skip
        assert line in said, line
    assert {one["stream"] for one in log(node, "faults")} >= {"isopod", "stderr"}


def test_a_new_version_is_another_program_and_the_old_one_comes_back(node, tmp_path):
    app = made(ROOT / "src/isopod/runtimes/wasi/templates/c", tmp_path / "versions")
    node.cli("deploy", str(app))
    assert text(node, "versions", "/x") == "Hello from C! You asked for /x\n"
    source = (app / "hello.c").read_text()
    (app / "hello.c").write_text(source.replace("Hello", "Goodbye"))
    make(app)
    node.cli("deploy", str(app))
    assert text(node, "versions").startswith("Goodbye from C!")
    node.cli("rollback", "versions")
    assert text(node, "versions").startswith("Hello from C!")
    node.cli("sleep", "versions")
    assert text(node, "versions").startswith("Hello from C!")


def test_a_module_is_compiled_before_its_version_goes_live_and_else_it_does_not(node, tmp_path):
    app = made(ROOT / "src/isopod/runtimes/wasi/templates/c", tmp_path / "ready")
    code = CodeFolder(node.data_dir / "machine-code", room_bytes=1 << 30, share_bytes=1 << 30)
    source = (app / "hello.c").read_text()
    for version, greeting in enumerate(("Good evening", "Good night")):
        (app / "hello.c").write_text(source.replace("Hello", greeting))
        make(app)
        key = code.key(DEFAULT_TENANT, (app / "hello.wasm").read_bytes())
        if version:  # as if this one had been tried a moment ago
            code.remember(
                key, ModuleTooCostly("the module takes too long"), Bounds(600, 4096 << 20)
            )
            failed = Failed(node, "deploy", str(app))
            assert failed.code == "module_too_costly" and "too long" in failed.message
        else:
            node.cli("deploy", str(app))
            assert code.find(key) is not None
        assert text(node, "ready").startswith("Good evening from C!")


def test_a_tenants_own_worker_has_machine_code_of_its_own(node, tmp_path):
    app = program(tmp_path / "apart", NAMED + '[isolation]\ncordon = "tenant"\n')
    shared = len(list((node.data_dir / "machine-code").glob("*.cwasm")))
    node.cli("deploy", str(app))
    assert until("it answers", lambda: get(node, "apart").text == "hello\n")
    (home,) = (node.data_dir / "cordons").iterdir()
    assert len(list((home / "machine-code").glob("*.cwasm"))) == 1
    assert len(list((node.data_dir / "machine-code").glob("*.cwasm"))) == shared


def test_a_command_before_a_version_goes_live_is_the_program_with_words(node, tmp_path):
    app = program(tmp_path / "commanded", NAMED + '[deploy]\npost_deploy = ["migrate 0"]\n')
    node.cli("deploy", str(app))
    assert "migrate" in messages(node, "commanded")
    (app / "isopod.toml").write_text(NAMED + '[deploy]\npost_deploy = ["migrate 7"]\n')
    assert "status 7" in Failed(node, "deploy", str(app)).message


def test_the_guest_book_keeps_what_was_written_in_it(node, tmp_path):
    app = made(ROOT / "examples" / "c-guestbook", tmp_path / "book")
    node.cli("volumes", "create", "book")
    node.cli("deploy", str(app))
    assert text(node, "book") == "Nobody has been here yet.\n"
    with Caller(node.gateway_port, "book") as caller:
        assert caller.call("/", "POST", b"").status == 422
        for name in (b"Ada", b"Grace"):
            assert caller.call("/", "POST", name).status == 303
        assert caller.call("/").text == "Ada\nGrace\n"


def wat(body: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {body})"))


PROGRAM = '(func (export "_start")) (memory (export "memory") 1)'


# More of them, faster, in tests/unit/runtimes/test_wasi_language.py.
@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        (b"\0asm\x0d\0\x01\0", "module_invalid", "a component"),
        (wat('(import "env" "draw" (func))' + PROGRAM), "module_invalid", "env.draw"),
        (wat(PROGRAM + "(func $f (loop (br 0))) (start $f)"), "deadline_exceeded", "did not"),
    ],
    ids=["component", "import", "endless start"],
)
def test_what_is_no_program_is_refused_and_what_serves_goes_on(
    node, tmp_path, module, code, message
):
    limits = NAMED + "[limits]\ndeadline_ms = 500\nmemory_mib = 32\n"
    failed = Failed(node, "deploy", str(program(tmp_path / "bad", limits, module)))
    assert (failed.code, message in failed.message) == (code, True), failed.err


def test_a_folder_with_no_module_or_several_says_which_it_wants(node, tmp_path):
    app = program(tmp_path / "several")
    (app / "other.wasm").write_bytes(b"x")
    failed = Failed(node, "deploy", str(app))
    assert "2 WebAssembly modules: cases.wasm, other.wasm" in failed.message
    failed = Failed(node, "deploy", str(folder(tmp_path / "none", {"isopod.toml": NAMED})))
    assert "no file 'cases.wasm'" in failed.message and "compile it first" in failed.hint
