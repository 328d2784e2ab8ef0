"""The bill of an app that waits, on a real node, from its requests to a statement that is checked
without the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.e2e.nodes import folder, text, until, up

from tools import node as nodes
from tools.node import Node

REQUESTS = 2
SLEEPER = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/":
        time.sleep(2)
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"rested"]
"""
# The health request of the build would sleep too: it asks for another path.
NO_WARMUP = '[health]\npath = "/health"\n'
PRICES = """
[node]
drain_s = 5

[prices]
currency = "EUR"
"""


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose only app slept through each of its requests; all of it is in the ledger."""
    path = tmp_path_factory.mktemp("bill")
    (path / "isopod-node.toml").write_text(PRICES)
    with up(path / "data", "--config", str(path / "isopod-node.toml")) as node:
        app = folder(path / "sleeper", {"app.py": SLEEPER, "isopod.toml": NO_WARMUP})
        node.cli("deploy", str(app), "--name", "sleeper")
        for _ in range(REQUESTS):
            assert text(node, "sleeper") == "rested"
        until("both are in the ledger", lambda: usage(node)["requests"] == REQUESTS)
        yield node


def usage(node: Node) -> dict:
    return node.json("usage", "--app", "sleeper")["total"]["usage"]


def test_an_app_that_waits_is_billed_for_its_cpu_beside_its_wall_clock_bill(billed):
    found = billed.json("usage")
    print("SEEN", billed.cli("usage"))
    (line,) = found["lines"]
    used, cost = line["usage"], {name: Decimal(money) for name, money in line["cost"].items()}
    assert int(used["wall_100ms"]) >= 20 * REQUESTS
    assert int(used["wait_ns"]) >= 1.9e9 * REQUESTS
    assert int(used["cpu_ns"]) < int(used["wall_ns"]) / 5  # its start included
    assert cost["cpu"] + cost["memory"] < cost["wall_clock"] / 5
    assert cost["saved"] > 0
    assert found["prices"]["currency"] == "EUR"


def test_its_month_is_signed_and_checked_where_there_is_no_node(billed, tmp_path):
    month = f"{datetime.now(UTC):%Y-%m}"
    statement, key = tmp_path / "statement.json", tmp_path / "node.key"
    statement.write_text(billed.cli("usage", "statement", "--month", month))
    key.write_text(billed.cli("usage", "key"))
    nowhere = Node(tmp_path / "none", billed.process, nodes.environment(tmp_path / "none"), key)
    arguments = ("usage", "verify", str(statement), "--key", str(key))
    assert "sound" in nowhere.cli(*arguments)
    body = json.loads(statement.read_text())
    body["statement"]["lines"][0]["usage"]["requests"] -= 1
    statement.write_text(json.dumps(body))
    refused = nowhere.run(*arguments)
    assert refused.returncode == 1 and "changed after it was signed" in refused.stderr


def test_the_signing_key_is_controls_alone(billed):
    path = Path(billed.data_dir) / "statement.key"
    billed.cli("usage", "key")
    assert path.stat().st_mode & 0o777 == 0o600
    for worker in billed.workers():
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert path.read_bytes().strip() not in environment


def test_a_running_nodes_folder_is_examined(billed):
    done = billed.run("doctor", "--json", "--data-dir", str(billed.data_dir))
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["status"] == "problem" else 0)
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["data directory"]["status"] == "ok", found
    assert "runs there" in by_name["node"]["text"]
