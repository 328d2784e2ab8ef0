"""Reading an app's log by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.e2e.nodes import Failed, folder, get, up

from tools.node import Node

APP = """
import logging
import warnings

logging.basicConfig(level=logging.DEBUG)

def nested(depth):
    try:
        if depth:
            nested(depth - 1)
        raise ValueError("the innermost of all")
    except Exception as error:
        raise RuntimeError(f"at depth {depth}" + "." * 1500) from error

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        nested(30)
    logging.debug("of interest to few")
    logging.warning("look at this")
    print("plain")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    where = tmp_path_factory.mktemp("logs")
    with up(where / "data", extra_env={"ISOPOD_LOG_MIB": "1"}) as node:
        node.cli("deploy", str(folder(where / "app", {"app.py": APP})), "--name", "talks")
        yield node


def lines(node: Node, *options: str) -> list[dict]:
    return [json.loads(line) for line in node.cli("logs", "talks", "--json", *options).splitlines()]


def test_a_log_is_read_by_request_and_by_level(node):
    first, _second = get(node, "talks"), get(node, "talks")
    mine = lines(node, "--request", first["X-Request-Id"])
    assert [line["message"] for line in mine] == [
        "DEBUG:root:of interest to few",
        "WARNING:root:look at this",
        "plain",
    ]
    assert [line["level"] for line in mine] == ["debug", "warning", "info"]
    assert {(line["app"], line["version"]) for line in mine} == {("talks", 1)}
    assert len({line["instance"] for line in mine}) == 1
    assert all(line["instance"] for line in mine)
    shown = node.cli("logs", "talks", "--level", "warning", "--request", first["X-Request-Id"])
    assert "look at this" in shown
    assert "plain" not in shown
    refused = Failed(node, "logs", "talks", "--level", "loud")
    assert refused.code == "usage"


def test_a_traceback_is_there_whole_and_in_one_piece(node):
    answer = get(node, "talks", "/fail")
    assert answer.status == 502
    mine = lines(node, "--request", answer["X-Request-Id"], "--level", "error")
    text = "\n".join(line["message"] for line in mine if line["stream"] == "stderr")
    assert len(text) > 45_000
    assert "the innermost of all" in text
    assert all(f"RuntimeError: at depth {depth}" in text for depth in range(31))
    ours = [line["message"] for line in mine if line["stream"] == "isopod"]
    assert ours[0].startswith("guest_failed: the app raised an error")
