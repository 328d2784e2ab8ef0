"""Secrets by the real command line: set, restarted with, never shown, never clear on disk."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.nodes import Failed, folder, get, messages, text, until, up

from tools.node import Node, command, environment

VALUE = "correct-horse-battery-staple"
ASKED = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get(environ["PATH_INFO"][1:], "none").encode()]
"""
EARLY = """
import os
KEY = os.environ["KEY"]
assert KEY.startswith("k-"), "no key of ours"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [KEY.encode()]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("secrets") / "data", workers=2) as node:
        yield node


def put(node: Node, app: str, name: str, value: str, *options: str) -> str:
    done = subprocess.run(
        [*command(), "secrets", "set", app, name, *options],
        env=environment(node.data_dir),
        input=value,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert value not in done.stdout + done.stderr
    return done.stdout


def everywhere(node: Node, name: str, path: str, value: str) -> bool:
    """Several connections: each worker is asked."""
    return all(text(node, name, path) == value for _ in range(8))


def detail(node: Node, app: str) -> dict:
    return json.loads(node.cli("app", app, "--json"))


def test_a_change_reaches_every_worker_at_once_and_builds_nothing(own, tmp_path):
    node = own
    shop = folder(tmp_path / "shop", {"app.py": ASKED})
    node.cli("deploy", str(shop), "--name", "shop")
    assert text(node, "shop", "/API_KEY") == "none"
    put(node, "shop", "API_KEY", VALUE)
    assert everywhere(node, "shop", "/API_KEY", VALUE)
    # A new name: the image is taken anew, and no value is in it.
    found = until("a new image", lambda: detail(node, "shop")["snapshot"])
    assert (found["verdict"], found["private"]) == ("sound", False)
    assert everywhere(node, "shop", "/API_KEY", VALUE)
    began = time.monotonic()
    said = put(node, "shop", "API_KEY", VALUE + "-2\n")
    print(
        f"SEEN a change of a value: {time.monotonic() - began:.2f} s with the command line's start"
    )
    assert "it runs with them now" in said
    assert everywhere(node, "shop", "/API_KEY", VALUE + "-2")
    after = detail(node, "shop")
    assert after["snapshot"]["image"] == found["image"]  # the value changed, the image did not
    assert [version["number"] for version in after["versions"]] == [1]
    assert after["secrets"] == ["API_KEY"]
    assert "nothing was restarted" in put(node, "shop", "API_KEY", VALUE + "-2")
    # Deployed again it has them still, and so has what is rolled back to.
    (shop / "app.py").write_text(ASKED + "# 2\n")
    node.cli("deploy", str(shop), "--name", "shop")
    assert everywhere(node, "shop", "/API_KEY", VALUE + "-2")
    node.cli("rollback", "shop")
    assert everywhere(node, "shop", "/API_KEY", VALUE + "-2")
    node.cli("secrets", "unset", "shop", "API_KEY")
    assert everywhere(node, "shop", "/API_KEY", "none")


def contents(path: Path) -> bytes:
    """Nothing, of one that the node has just removed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_no_file_of_the_node_holds_a_value(own, tmp_path):
    node = own
    file = tmp_path / "production.env"
    file.write_text(f'A="{VALUE}"\nB={VALUE}-b\n')
    vault = folder(tmp_path / "vault", {"app.py": ASKED})
    node.cli("secrets", "set", "vault", "--env-file", str(file))
    node.cli("deploy", str(vault))  # its name is the folder's: it is tried with its secrets
    assert text(node, "vault", "/A") == VALUE and text(node, "vault", "/B") == f"{VALUE}-b"
    found = detail(node, "vault")
    assert found["snapshot"]["verdict"] == "sound" and VALUE not in json.dumps(found)
    listed = json.loads(node.cli("secrets", "list", "vault", "--json"))
    assert [one["name"] for one in listed] == ["A", "B"] and set(listed[0]) == {
        "name",
        "changed_at",
    }
    for command_line in (("audit", "--json"), ("logs", "vault"), ("status", "--json")):
        assert VALUE not in node.cli(*command_line)
    files = [path for path in node.data_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"state.db", "routes.db"} <= {path.name for path in files}
    assert [path for path in files if VALUE.encode() in contents(path)] == []
    assert VALUE not in node.said


def test_an_app_that_needs_one_at_its_import_boots_with_it_each_time(own, tmp_path):
    node = own
    early = folder(tmp_path / "early", {"app.py": EARLY})
    missing = Failed(node, "deploy", str(early))
    assert (missing.code, missing.status) == ("app_failed_to_start", 1)
    put(node, "early", "KEY", "k-1")
    node.cli("deploy", str(early))
    assert text(node, "early") == "k-1"
    snapshot = detail(node, "early")["snapshot"]
    assert snapshot["verdict"] == "plain"
    assert any(one["place"] == "app.py:4" for one in snapshot["findings"]), snapshot
    put(node, "early", "KEY", "k-2")
    assert everywhere(node, "early", "/", "k-2")


def test_bad_names_and_values_are_refused_and_change_nothing(own, tmp_path):
    node = own
    for name in (
        "PATH",
        "PYTHONPATH",
        "LD_PRELOAD",
        "ISOPOD_TOKEN",
        "tmpdir",
        "1A",
        "A-B",
        "A" * 200,
    ):
        done = node.run("secrets", "set", "nobody", name)
        assert "code: secret_name_invalid" in done.stderr or "is empty" in done.stderr, done.stderr
    file = tmp_path / "bad.env"
    file.write_text(f"GOOD={VALUE}\nPATH=/bin\n")
    refused = Failed(node, "secrets", "set", "nobody", "--env-file", str(file))
    assert refused.code == "secret_name_invalid" and "'PATH'" in refused.message
    assert VALUE not in refused.err
    assert Failed(node, "secrets", "set", "nobody", f"KEY={VALUE}").code == "usage"
    assert Failed(node, "secrets", "list", "nobody").code == "app_not_found"
    assert Failed(node, "secrets", "unset", "nobody", "GOOD").code == "secret_not_found"
    file.write_text("\n".join(f"K{n}=x" for n in range(101)))
    assert (
        Failed(node, "secrets", "set", "nobody", "--env-file", str(file)).code == "quota_exceeded"
    )
    file.write_text(f"BIG={'x' * 70_000}\n")
    assert "64 KiB" in Failed(node, "secrets", "set", "nobody", "--env-file", str(file)).message


def test_a_lost_key_is_told_by_the_apps_that_need_it_and_by_no_other(tmp_path):
    data_dir = tmp_path / "data"
    with up(data_dir) as node:
        for name in ("with", "without"):
            node.cli("deploy", str(folder(tmp_path / name, {"app.py": ASKED})))
        put(node, "with", "API_KEY", VALUE)
        assert text(node, "with", "/API_KEY") == VALUE
    key = data_dir / "secrets.key"
    lost = key.read_text()
    key.unlink()
    with up(data_dir) as node:
        assert get(node, "with", "/API_KEY").status == 500
        assert "sealed with another key" in messages(node, "with")
        assert text(node, "without", "/API_KEY") == "none"
        put(node, "with", "API_KEY", "again")  # or set anew: the other way out
        assert text(node, "with", "/API_KEY") == "again"
        assert lost != key.read_text()


def test_settings_of_a_file_are_a_deploys(own, tmp_path):
    node = own
    file: Path = tmp_path / ".env"
    file.write_text("A=file\nB=file\n")
    app = folder(tmp_path / "settled", {"app.py": ASKED})
    node.cli("deploy", str(app), "--env-file", str(file), "--env", "B=option")
    assert (text(node, "settled", "/A"), text(node, "settled", "/B")) == ("file", "option")
