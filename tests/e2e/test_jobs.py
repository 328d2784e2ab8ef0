"""Jobs on a real node: by the clock and by hand, failing, and amid kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.e2e.nodes import Failed, folder, get, messages, until, up

from tools.node import Node

APP = """
import time

def app(environ, start_response):
    path, job = environ["PATH_INFO"], environ.get("HTTP_X_ISOPOD_JOB", "")
    print(environ["REQUEST_METHOD"], path, "for job", repr(job))
    if path == "/slow":
        time.sleep(60)
    status = "500 Oh" if path == "/broken" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [f"job {job!r}".encode()]
"""
MANIFEST = """
[limits]
deadline_ms = 1000

[[jobs]]
name = "tick"
schedule = "0 0 1 1 *"
path = "/tick?by=clock"

[[jobs]]
name = "broken"
schedule = "0 0 1 1 *"
path = "/broken"

[[jobs]]
name = "slow"
schedule = "0 0 1 1 *"
path = "/slow"
timeout_s = 2

[[jobs]]
name = "long"
schedule = "0 0 1 1 *"
path = "/slow"
retries = 1
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    where = tmp_path_factory.mktemp("jobs")
    with up(where / "data", workers=2) as node:
        files = {"app.py": APP, "isopod.toml": MANIFEST}
        node.cli("deploy", str(folder(where / "clock", files)), "--name", "clock")
        yield node
        node.cli("delete", "clock", "--yes")  # ends what runs
        assert node.cli("apps", "--json").strip() == "[]"


def runs(node: Node, job: str) -> list[dict]:
    return json.loads(node.cli("jobs", "runs", "clock", job, "--json"))


def test_a_job_that_is_due_wakes_its_app(node):
    node.cli("sleep", "clock")
    before = {one["id"] for one in runs(node, "tick")}
    with closing(sqlite3.connect(node.data_dir / "state.db", timeout=10)) as state, state:
        state.execute("UPDATE jobs SET next_at = ? WHERE name = 'tick'", (time.time() - 1,))
    (run,) = until(
        "it ran",
        lambda: [one for one in runs(node, "tick") if one["ended_at"] and one["id"] not in before],
    )
    assert (run["outcome"], run["status"], run["trigger"]) == ("ok", 200, "schedule")
    assert run["cpu_ms"] > 0
    assert messages(node, "clock", run["request_id"]) == "POST /tick for job 'tick'"
    listed = json.loads(node.cli("jobs", "list", "--json"))
    assert [one["name"] for one in listed] == ["tick", "broken", "slow", "long"]
    assert listed[0]["next_at"] > time.time()
    assert listed[0]["last"] == run
    assert "POST /tick?by=clock" in node.cli("jobs", "list")


def test_nobody_from_outside_is_taken_for_a_job(node):
    assert get(node, "clock", "/tick", **{"X-Isopod-Job": "tick"}).text == "job ''"


def test_a_job_runs_by_hand_and_one_that_fails_says_where_to_look(node):
    assert node.cli("jobs", "run", "clock", "tick").startswith("job 'tick' ran in ")
    failed = Failed(node, "jobs", "run", "clock", "broken")
    assert failed.code == "job_failed"
    assert "it answered 500" in failed.message
    run = runs(node, "broken")[0]
    assert f"--request {run['request_id']}" in failed.hint
    assert "POST /broken" in messages(node, "clock", run["request_id"])
    assert "job 'broken' failed: job_failed: it answered 500" in messages(node, "clock")
    assert Failed(node, "jobs", "run", "clock", "none").code == "job_not_found"


def test_a_jobs_deadline_is_its_own_and_not_the_apps(node):
    failed = Failed(node, "jobs", "run", "clock", "slow")
    assert "deadline_exceeded" in failed.message
    run = runs(node, "slow")[0]
    assert 1.9 < run["ended_at"] - run["started_at"] < 50
    assert "ran past its deadline of 2000 ms" in messages(node, "clock", run["request_id"])


def test_a_worker_that_is_killed_loses_the_run_and_it_is_tried_again(node):
    node.cli("jobs", "run", "clock", "long", "--no-wait")

    def runs_it() -> list[int]:
        return [
            worker["pid"]
            for worker in node.worker_status()
            if any(one["state"] == "busy" for one in worker["instances"])
            and runs(node, "long")[0]["outcome"] == "running"
        ]

    pid, *_ = until("it runs", runs_it)
    os.kill(pid, signal.SIGKILL)
    again = until("it is tried again", lambda: len(r := runs(node, "long")) > 1 and r)
    assert again[-1]["outcome"] == "worker_lost"
    assert (again[0]["outcome"], again[0]["trigger"]) == ("running", "retry")
