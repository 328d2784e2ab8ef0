"""Commands of apps: before a version goes live, and as jobs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import HELLO, Failed, folder, get, log, messages, text, until, up

from tools.node import Node

MIGRATE = """
import os, sys

if __name__ == "__main__":
    print("migrating", sys.argv[1:], os.environ["WHAT"], __file__, os.getcwd())
    open("/tmp/private", "w").write("x")
    import helper
    if "fail" in sys.argv:
        print("about to fail")
        sys.exit("no such table")
    if "raise" in sys.argv:
        raise ValueError("on purpose")
"""
JOBS = """
[[jobs]]
name = "tidy"
schedule = "0 0 1 1 *"
command = "python -c 'import sys; print(len(sys.argv), sys.argv[1])' 'two words'"

[[jobs]]
name = "endless"
schedule = "0 0 1 1 *"
command = "python -c 'while True: pass'"
timeout_s = 1

[[jobs]]
name = "large"
schedule = "0 0 1 1 *"
command = "python -c 'x = bytearray(1 << 30)'"

[[jobs]]
name = "unknown"
schedule = "0 0 1 1 *"
command = "alembic upgrade head"
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("commands") / "data"
    with up(data, extra_env={"ISOPOD_EGRESS_PRIVATE": f"127.0.0.1:{upstream}"}) as node:
        yield node


def app(path: Path, *commands: str, answer: str = "hello", more: str = "") -> str:
    manifest = f"[deploy]\npost_deploy = {json.dumps(commands)}\n[env]\nWHAT = 'it'\n{more}"
    files = {
        "app.py": HELLO % answer,
        "tools/migrate.py": MIGRATE,
        "tools/helper.py": "",
        "isopod.toml": manifest,
    }
    return str(folder(path, files))


def test_commands_run_before_the_first_version_is_there_for_anybody(node, tmp_path):
    good = "python tools/migrate.py up --all"
    failed = Failed(node, "deploy", app(tmp_path, good, f"{good} fail"), "--name", "first")
    assert failed.code == "command_failed"
    assert "the command ended with status 1" in failed.message
    for said in ("migrating ['up', '--all', 'fail'] it", "about to fail", "no such table"):
        assert said in failed.err
    assert "first" not in {one["name"] for one in node.json("apps")}
    assert Failed(node, "app", "first").code == "app_not_found"
    assert get(node, "first").status == 404
    said = node.run("deploy", app(tmp_path, good), "--name", "first").stderr
    assert "post_deploy" in said
    assert text(node, "first") == "hello"
    lines = [line for line in log(node, "first") if "migrating" in line["message"]]
    assert lines[0]["message"] == ("migrating ['up', '--all'] it tools/migrate.py /app")
    assert (lines[0]["version"], len(lines)) == (1, 1)
    assert lines[0]["request_id"]


def test_a_command_that_fails_keeps_the_version_that_was_live(node, tmp_path):
    node.cli("deploy", app(tmp_path, answer="old"), "--name", "kept")
    for command, said in (
        ("python tools/migrate.py raise", "ValueError: on purpose"),
        ("python -m tools.missing", "No module named"),
        ("python", "there is no terminal"),
        ("alembic upgrade head", "no console script"),
    ):
        failed = Failed(node, "deploy", app(tmp_path, command, answer="new"), "--name", "kept")
        assert failed.code == "command_failed"
        assert said in failed.err
        assert text(node, "kept") == "old"
    assert "ValueError: on purpose" in messages(node, "kept")
    # Going back to it runs the commands of a deploy, and none for a rollback.
    node.cli("deploy", app(tmp_path, "python tools/migrate.py now", answer="new"), "--name", "kept")
    assert text(node, "kept") == "new"
    before = messages(node, "kept").count("migrating")
    node.cli("rollback", "kept")
    node.cli("deploy", app(tmp_path, "python tools/migrate.py now", answer="new"), "--name", "kept")
    assert messages(node, "kept").count("migrating") == before + 1


def test_a_command_connects_where_its_own_version_may_and_nowhere_else(node, tmp_path, upstream):
    connect = f"import socket; socket.create_connection(('127.0.0.1', {upstream})); print('there')"
    command = f'python -c "{connect}"'
    failed = Failed(node, "deploy", app(tmp_path, command), "--name", "reaches")
    assert "PermissionError" in failed.err
    allowed = f"[network]\nallow = ['127.0.0.1:{upstream}']\n"
    node.cli("deploy", app(tmp_path, command, more=allowed), "--name", "reaches")
    assert "there" in messages(node, "reaches")


def test_a_job_may_be_a_command(node, tmp_path):
    node.cli("deploy", app(tmp_path, more=JOBS), "--name", "works")
    node.cli("jobs", "run", "works", "tidy")
    (run,) = json.loads(node.cli("jobs", "runs", "works", "tidy", "--json"))
    assert messages(node, "works", run["request_id"]) == "2 two words"
    assert (run["outcome"], run["cpu_ms"] > 0) == ("ok", True)
    for job, code in (
        ("endless", "deadline_exceeded"),
        ("large", "memory_limit_exceeded"),
        ("unknown", "command_failed"),
    ):
        failed = Failed(node, "jobs", "run", "works", job)
        assert code in failed.message
    assert text(node, "works") == "hello"

    def left() -> int:
        return sum(one["app"] == "works" for one in node.instances())

    until("nothing of them is left", lambda: left() == 1)


def test_a_command_writes_to_the_volume_that_the_app_reads(node, tmp_path):
    node.cli("volumes", "create", "shelf")
    files = {}
    write = 'python write.py "%s"'
    files["write.py"] = "import sys\nopen('/shelf/note', 'w').write(sys.argv[1])\n"
    files["app.py"] = (
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    note = '/shelf/note'\n"
        "    return [open(note, 'rb').read() if os.path.exists(note) else b'empty']\n"
    )
    for words in ("first", "second"):  # the second while an instance has the volume
        files["isopod.toml"] = (
            "[[volumes]]\nname = 'shelf'\nmount = '/shelf'\n"
            f"[deploy]\npost_deploy = ['{write % words}']\n"
        )
        node.cli("deploy", str(folder(tmp_path, files)), "--name", "shelf")
        assert text(node, "shelf") == words


def test_a_static_site_runs_no_commands(node, tmp_path):
    files = {"index.html": "<p>hi", "isopod.toml": "[deploy]\npost_deploy = ['python -c 1']\n"}
    failed = Failed(node, "deploy", str(folder(tmp_path, files)), "--name", "site")
    assert failed.code == "command_unsupported"
