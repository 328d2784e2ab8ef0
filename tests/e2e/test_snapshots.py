"""Starting from memory, as a user sees it: verdicts, and nothing shared that must not be."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.nodes import folder, text

from tools.node import Node

# Everything a request can leave behind in an instance, and what the next one finds of it.
DIARY = """
import json, os, pathlib, tempfile
KEPT = []
LEFT = pathlib.Path("/tmp/left")
def app(environ, start_response):
    found = {
        "memory": list(KEPT),
        "environ": os.environ.get("LEFT"),
        "file": LEFT.read_text() if LEFT.exists() else None,
        "module": getattr(json, "left", None),
        "cwd": os.getcwd(),
    }
    KEPT.append(environ["PATH_INFO"])
    os.environ["LEFT"] = json.left = environ["PATH_INFO"]
    LEFT.write_text(environ["PATH_INFO"])
    os.chdir("/tmp")
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"""
UNIQUE = """
import os, random, tempfile, time, uuid
random.random(); uuid.uuid1(); next(tempfile._get_candidate_names())
BOOTED = time.monotonic()
def app(environ, start_response):
    drawn = [random.random(), str(uuid.uuid4()), str(uuid.uuid1()), os.urandom(8).hex(),
             next(tempfile._get_candidate_names())]
    aged = time.monotonic() - BOOTED
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\\n".join([*map(str, drawn), repr(aged), os.environ.get("WHO", "")]).encode()]
"""
READS = """
import os
KEY = os.environ["KEY"]
def app(environ, start_response):
    start_response("200 OK", [])
    return [KEY.encode()]
"""


def test_with_an_instance_per_request_nothing_of_one_is_found_by_the_next(
    node: Node, tmp_path: Path
):
    made = folder(tmp_path, {"app.py": DIARY, "isopod.toml": '[isolation]\nmode = "request"\n'})
    node.cli("deploy", str(made), "--name", "diary")
    # The warm-up's traces are in the image, and so in each instance alike; no request's are.
    first = json.loads(text(node, "diary", "/first"))
    assert first["environ"] == first["module"] == first["file"] == "/"
    for number in range(5):
        found = json.loads(text(node, "diary", f"/{number}"))
        assert found == first


def test_an_instance_shared_by_requests_keeps_what_they_left(node: Node, tmp_path: Path):
    """The control for the test above: it would see traces if there were any."""
    made = folder(tmp_path, {"app.py": DIARY})
    node.cli("deploy", str(made), "--name", "shared-diary")
    text(node, "shared-diary", "/first")
    found = [json.loads(text(node, "shared-diary", f"/{number}")) for number in range(8)]
    assert any(one["file"] in one["memory"][3:] for one in found)


def test_two_starts_from_one_image_draw_different_things_and_clocks_go_on(
    node: Node, tmp_path: Path
):
    made = folder(tmp_path, {"app.py": UNIQUE})
    done = node.run("deploy", str(made), "--name", "unique", "--env", "WHO=me")
    assert done.returncode == 0, done.stderr
    assert "snapshot      sound" in done.stderr
    drawn = []
    for _ in range(2):
        node.cli("sleep", "unique")
        drawn.append(text(node, "unique").split("\n"))
    for one, other in zip(drawn[0][:5], drawn[1][:5], strict=True):
        assert one != other
    assert all(float(lines[5]) > 0 for lines in drawn)
    assert [lines[6] for lines in drawn] == ["me", "me"]


def test_a_setting_read_at_import_makes_the_image_private_and_names_the_line(
    node: Node, tmp_path: Path
):
    made = folder(tmp_path, {"app.py": READS})
    done = node.run("deploy", str(made), "--name", "reads", "--env", "KEY=s3cret-value")
    assert done.returncode == 0, done.stderr
    assert re.search(r"KEY .*app\.py:3", done.stderr)
    assert "s3cret-value" not in done.stderr
    assert text(node, "reads") == "s3cret-value"
    shown = node.json("app", "reads")["snapshot"]
    assert shown["private"] is True
    done = node.run("deploy", str(made), "--name", "reads", "--env", "KEY=another")
    assert done.returncode == 0, done.stderr
    assert text(node, "reads") == "another"


def test_strict_refuses_what_cannot_be_shared_and_the_old_version_serves(
    node: Node, tmp_path: Path
):
    good = "def app(e, s):\n    s('200 OK', [])\n    return [b'good']\n"
    bad = "LOG = open('/tmp/log', 'w')\n" + good.replace("good", "bad")
    made = folder(tmp_path, {"app.py": good})
    node.cli("deploy", str(made), "--name", "strict")
    folder(made, {"app.py": bad})
    done = node.run("deploy", str(made), "--name", "strict", "--strict")
    assert done.returncode == 1
    assert "snapshot_unsound" in done.stderr
    assert "app.py:1" in done.stderr
    assert text(node, "strict") == "good"
    done = node.run("deploy", str(made), "--name", "strict")
    assert done.returncode == 0, done.stderr
    assert "plain boot" in done.stderr
    assert text(node, "strict") == "bad"
