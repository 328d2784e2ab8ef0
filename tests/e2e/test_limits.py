"""Limits of an app and quotas of a tenant, on one node with two workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.nodes import APPS, Failed, folder, get, hello, log, messages, text, until, up

from tools.http_calls import Caller
from tools.node import Node

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(tmp_path_factory.mktemp("limits") / "data", workers=2) as node:
        yield node


@pytest.fixture(scope="module")
def limited(node: Node) -> str:
    node.cli("deploy", str(APPS / "limited"), "--name", "limited")
    return "limited"


@pytest.fixture
def tenant(node: Node, tmp_path, request) -> str:
    """A tenant with the quota that the test's parameter names, and its app, named as it is."""
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    quota = [part for bound in request.param for part in ("--quota", bound)]
    node.cli("tenants", "create", name, *quota)
    files = {"app.py": (APPS / "limited" / "app.py").read_text()}
    node.cli("deploy", str(folder(tmp_path / name, files)), "--name", name, "--tenant", name)
    return name


def logged(node: Node, tenant: str) -> str:
    lines = node.cli("logs", tenant, "--tenant", tenant, "--json").splitlines()
    return "\n".join(json.loads(line)["message"] for line in lines)


def test_a_request_that_used_its_cpu_is_ended_and_the_next_is_served(node, limited):
    answer = get(node, limited, "/spin?20000")
    assert (answer.status, answer["X-Isopod-Error"]) == (504, "cpu_limit_exceeded")
    assert answer.ms < 20_000  # what it wanted to compute for
    assert text(node, limited) == "done"
    assert text(node, limited, "/sleep?600") == "done"  # three times its CPU, and used none
    assert "more CPU than its limit of 200 ms" in messages(node, limited)


def test_a_response_beyond_its_limit_is_refused_or_cut(node, limited):
    answer = get(node, limited, "/send?3")
    assert (answer.status, answer["X-Isopod-Error"]) == (502, "response_too_large")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        get(node, limited, "/stream?3")
    assert len(get(node, limited, "/stream?2").body) == 2 << 20
    assert "larger than 2 MiB" in messages(node, limited)


def test_a_flood_of_lines_is_dropped_and_the_log_says_so(node, limited):
    assert text(node, limited, "/flood?3000") == "done"
    until("the log tells of it", lambda: "dropped " in messages(node, limited))
    lines = log(node, limited)
    assert sum(line["message"].startswith("line ") for line in lines) < 1500
    assert any("limits.log_kib_per_s = 4" in line["message"] for line in lines)


def test_every_limit_of_an_app_is_shown(node, limited):
    assert node.json("app", limited)["limits"] == {
        "memory_mib": 256,
        "deadline_ms": 30_000,
        "cpu_ms_per_request": 200,
        "max_instances": 2,
        "max_request_mib": 100,
        "max_response_mib": 2,
        "log_kib_per_s": 4,
        "disk_mib": 256,
    }


def test_two_values_for_one_limit_are_refused(node, tmp_path):
    manifest = "[scaling]\nmax_instances = 2\n[limits]\nmax_instances = 3\n"
    app = hello(tmp_path / "twice")
    (app / "isopod.toml").write_text(manifest)
    failed = Failed(node, "deploy", str(app))
    assert failed.code == "manifest_invalid"
    assert "keep one of the two" in failed.message


@pytest.mark.parametrize("tenant", [["requests_per_s=5"]], indirect=True)
def test_requests_beyond_a_tenants_rate_are_429_on_all_workers_together(node, tenant):
    statuses: Counter[int] = Counter()
    began = time.monotonic()
    # At once: one after the other they may be slow enough, on a busy machine.
    with ThreadPoolExecutor(20) as pool:
        for answer in pool.map(lambda _: get(node, tenant), range(60)):
            statuses[answer.status] += 1
            if answer.status == 429:
                assert int(answer["Retry-After"]) >= 1
                assert answer["X-Isopod-Error"] == "too_many_requests"
                assert tenant.encode() not in answer.body
    took = time.monotonic() - began
    assert set(statuses) == {200, 429}
    assert 5 <= statuses[200] <= 6 + 5 * took
    assert "more than 5 requests per second" in logged(node, tenant)


@pytest.mark.parametrize("tenant", [["cpu_s_per_day=1"]], indirect=True)
def test_a_tenant_that_used_its_cpu_of_the_day_is_refused(node, tenant):
    assert text(node, tenant, "/spin?1500") == "done"
    answer = until("it is refused", lambda: refusal(node, tenant))
    assert answer["X-Isopod-Error"] == "quota_exceeded"
    assert b"cpu" not in answer.body and tenant.encode() not in answer.body
    assert "s of CPU today" in logged(node, tenant)
    node.cli("tenants", "set", tenant, "--quota", "cpu_s_per_day=100")
    until("it is served again", lambda: get(node, tenant).status == 200)


def refusal(node: Node, app: str):
    answer = get(node, app)
    return answer if answer.status == 403 else None


@pytest.mark.parametrize("tenant", [["max_instances=1"]], indirect=True)
def test_a_tenants_only_instance_follows_its_requests_from_worker_to_worker(node, tenant):
    seen = set()
    for _ in range(8):  # each on a connection of its own, which either worker may take
        assert text(node, tenant) == "done"
        live = [one for one in node.instances() if one["app"] == tenant]
        assert len(live) == 1
        seen.add(live[0]["worker"])
    with Caller(node.gateway_port, tenant) as slow:
        waiting = threading.Thread(target=slow.call, args=("/sleep?4000",))
        waiting.start()
        until("it serves", lambda: any(busy_with(one, tenant) for one in node.instances()))
        # The other worker has no instance, and may have none. The kernel chooses who answers.
        answers = [get(node, tenant) for _ in range(6)]
        refused = [answer for answer in answers if answer.status != 200]
        assert {answer["X-Isopod-Error"] for answer in refused} <= {"quota_exceeded"}
        waiting.join()


def busy_with(instance, app: str) -> bool:
    return instance["app"] == app and instance["state"] == "busy"


@pytest.mark.parametrize("tenant", [[]], indirect=True)
def test_a_suspended_tenants_apps_are_refused_until_it_is_resumed(node, tenant):
    assert text(node, tenant) == "done"
    node.cli("tenants", "suspend", tenant)
    answer = until("it is suspended", lambda: refusal(node, tenant))
    assert answer["X-Isopod-Error"] == "tenant_suspended"
    assert tenant.encode() not in answer.body and b"operator" not in answer.body
    node.cli("tenants", "resume", tenant)
    until("it is served again", lambda: get(node, tenant).status == 200)


@pytest.mark.parametrize("tenant", [[]], indirect=True)
def test_a_tenant_that_computes_with_all_its_instances_starves_nobody(node, limited, tenant):
    with contextlib.ExitStack() as held:
        hogs = [held.enter_context(Caller(node.gateway_port, tenant)) for _ in range(24)]
        threads = [threading.Thread(target=hog.call, args=("/spin?3000",)) for hog in hogs]
        for thread in threads:
            thread.start()
        until("they compute", lambda: sum(busy_with(i, tenant) for i in node.instances()) >= 6)
        answers = [get(node, limited) for _ in range(30)]
        assert {answer.status for answer in answers} == {200}
        # Those before them want 36 s of two cores.
        assert sorted(answer.ms for answer in answers)[15] < 5000
        for thread in threads:
            thread.join()


def test_thousands_of_connections_that_say_nothing_keep_nobody_out(node, limited):
    with contextlib.ExitStack() as held:
        for _ in range(10_000):
            link = held.enter_context(socket.socket())
            link.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                link.connect((HOST, node.gateway_port))
        for _ in range(5):
            with Caller(node.gateway_port, limited) as caller:
                assert caller.call().status == 200
