"""From nothing to an app that answers, and back to nothing: the issue's "must show" 2 and 3."""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.nodes import APPS, folder, get, hello, text, until

from tools.http_calls import Answer, Caller
from tools.node import Node


def instances(node: Node, app: str) -> int:
    """As `isopod status --json` says."""
    status = node.json("status")
    return sum(one["app"] == app for one in status["instance_list"])


def timing(header: str) -> dict[str, float]:
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


@pytest.fixture
def flask_hello(node: Node, tmp_path: Path) -> Path:
    """A folder with app.py and requirements.txt and nothing else."""
    made = tmp_path / "hello"
    shutil.copytree(APPS / "flask_hello", made)
    return made


def test_flask_hello_is_deployed_with_one_command_and_sleeps_until_asked(node, flask_hello):
    assert sorted(path.name for path in flask_hello.iterdir()) == ["app.py", "requirements.txt"]
    done = node.run("deploy", "--name", "hello", cwd=flask_hello)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"http://hello.localhost:{node.gateway_port}/\n"
    for step in ("pack", "upload", "unpack", "detect", "dependencies", "compile", "start"):
        assert f"  {step} " in done.stderr
    assert instances(node, "hello") == 0
    assert text(node, "hello") == "Hello from Flask!\n"
    assert instances(node, "hello") == 1


def test_an_idle_instance_ends_after_idle_s_and_the_next_request_starts_one(node, flask_hello):
    folder(flask_hello, {"isopod.toml": "[scaling]\nidle_s = 1\n"})
    node.cli("deploy", str(flask_hello), "--name", "sleeper")

    def started() -> bool:
        assert text(node, "sleeper") == "Hello from Flask!\n"
        # Asked at once: the command line may take longer to start than it lives.
        return "sleeper" in {one["app"] for one in node.instances()}

    until("its instance", started)
    until("no instance", lambda: instances(node, "sleeper") == 0)
    until("another one", started)


def test_sleep_ends_idle_instances_at_once(node, kitchen):
    text(node, kitchen)
    assert instances(node, kitchen) >= 1
    node.cli("sleep", kitchen)
    assert instances(node, kitchen) == 0
    assert text(node, kitchen) == "hello\n"


def test_server_timing_is_on_every_response_and_shows_a_cold_start(node, kitchen):
    node.cli("sleep", kitchen)
    with Caller(node.gateway_port, kitchen) as caller:
        cold = timing(caller.call()["Server-Timing"])
        warm = timing(caller.call()["Server-Timing"])
        missing = timing(get(node, "nobody")["Server-Timing"])
        refused = timing(caller.call(body=b"x", Content_Length=str(1 << 40))["Server-Timing"])
    for seen in (cold, warm, missing, refused):
        assert list(seen) == ["queue", "start", "guest", "wait"]
    assert cold["start"] > 0.1 > warm["start"] == 0
    assert cold["guest"] > 0 and warm["guest"] > 0
    assert missing["guest"] == refused["guest"] == 0


def test_an_instance_is_reused(node, kitchen):
    with Caller(node.gateway_port, kitchen) as caller:
        first, second = caller.json("/echo"), caller.json("/echo")
    assert second["instance"] == first["instance"]
    assert second["request"] == first["request"] + 1


@pytest.fixture
def narrow(node: Node, tmp_path: Path) -> str:
    """Two instances per worker, and one request that may wait."""
    made = shutil.copytree(APPS / "kitchen", tmp_path / "narrow")
    folder(made, {"isopod.toml": "[scaling]\nmax_instances = 2\nqueue = 1\n"})
    node.cli("deploy", str(made), "--name", "narrow")
    return "narrow"


def test_max_instances_and_the_queue_are_bounds_and_the_rest_is_told_when_to_try_again(
    node, narrow
):
    workers = 2
    refused_at: list[float] = []

    def ask(_number: int) -> Answer:
        answer = get(node, narrow, "/sleep?1")
        if answer.status != 200:
            refused_at.append(time.monotonic())
        return answer

    began = time.monotonic()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(ask, range(30)))
        assert max(instances(node, narrow), 0) <= 2 * workers
    served = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    # While its instances slept a worker served two, and kept one waiting.
    came_for_s = int(
        max(refused_at, default=time.monotonic()) - began
    )  # on a busy machine some come when others slept
    assert 1 <= len(served) <= (3 + 2 * came_for_s) * workers, (len(served), came_for_s)
    for answer in refused:
        assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["X-Isopod-Error"] == "overloaded"
    assert text(node, narrow) == "hello\n"


def test_a_deleted_app_is_gone_and_its_name_is_free(node, tmp_path):
    node.cli("deploy", str(hello(tmp_path / "a", "first")), "--name", "passing")
    assert text(node, "passing") == "first"
    node.cli("delete", "passing", "--yes")
    assert get(node, "passing").status == 404
    node.cli("deploy", str(hello(tmp_path / "b", "second")), "--name", "passing")
    assert text(node, "passing") == "second"
