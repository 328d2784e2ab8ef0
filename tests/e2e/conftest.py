"""One node and its apps for most tests; those that break a node make their own (`nodes.up`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.nodes import APPS, copied, deploy_all, hello, text, up
from tests.e2e.wire import SlowEnd, wait_for_the_end

from tools.http_calls import Caller
from tools.node import Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two workers, and the apps of `apps/` deployed when they are first asked for."""
    with up(tmp_path_factory.mktemp("shared") / "data", workers=2) as node:
        yield node


def _deployed(node: Node, folder: str, name: str, *options: str) -> str:
    node.cli("deploy", str(APPS / folder), "--name", name, *options)
    return name


@pytest.fixture(scope="session")
def kitchen(node: Node) -> str:
    return _deployed(node, "kitchen", "kitchen")


@pytest.fixture(scope="session")
def validated(node: Node) -> str:
    """The same app under `wsgiref.validate`."""
    return _deployed(node, "kitchen", "validated", "--env", "VALIDATE=1")


@pytest.fixture(scope="session")
def faults(node: Node) -> str:
    return _deployed(node, "faults", "faults")


@pytest.fixture(scope="session")
def brief(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same app with a deadline that a test can wait for. Not for what ends by itself: a busy
    machine needs longer for anything."""
    made = shutil.copytree(APPS / "faults", tmp_path_factory.mktemp("brief") / "brief")
    (made / "isopod.toml").write_text("[limits]\ndeadline_ms = 1000\n")
    node.cli("deploy", str(made), "--name", "brief")
    return "brief"


@pytest.fixture(scope="session")
def flask_faults(node: Node) -> str:
    return _deployed(node, "flask_faults", "flask-faults")


@pytest.fixture(scope="session")
def slow_clients(node: Node, kitchen: str) -> Iterator[dict[str, Future[SlowEnd]]]:
    """Clients that stop in the middle. The node waits 15 and 30 s for them: they are started with
    the first tests, which go on meanwhile, and looked at by the last."""
    sent = {
        "header": "GET / HTTP/1.1\r\nHost: HOST\r\nX-Never: end",
        "body": "POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\nhalf",
    }
    with ThreadPoolExecutor(len(sent)) as pool:
        yield {
            what: pool.submit(wait_for_the_end, node, kitchen, text) for what, text in sent.items()
        }


@pytest.fixture
def caller(node: Node, kitchen: str) -> Iterator[Caller]:
    """One keep-alive connection to the kitchen."""
    with Caller(node.gateway_port, kitchen) as caller:
        yield caller


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """For a node of the test's own."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a stopped node with two apps, "app" (which is `hello`) and "kitchen"."""
    base = tmp_path_factory.mktemp("stopped")
    with up(base / "data") as node:
        app, kitchen = hello(base / "app"), APPS / "kitchen"
        deploy_all(node, (str(app), "--name", "app"), (str(kitchen), "--name", "kitchen"))
        assert text(node, "app") == "hello"
    return base / "data"


@pytest.fixture
def deployed(stopped: Path, data_dir: Path) -> Path:
    """A copy of it, for a node of the test's own: to end, and to damage."""
    return copied(stopped, data_dir)
