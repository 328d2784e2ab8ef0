"""Apps that fail: what their client is told, what the log holds, and who else notices. "Must
show" 5."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from tests.e2e.nodes import get, messages, text, until
from tests.e2e.wire import wire

from tools.http_calls import Answer, Caller
from tools.node import Node

SECRET = "a detail that no stranger may see"


def shown(answer: Answer) -> str:
    """The error's code, the same in header and body, with nothing of the app's in it."""
    assert SECRET not in answer.text and "Traceback" not in answer.text
    error = answer.json()["error"]
    assert error["code"] == answer["X-Isopod-Error"]
    assert error["request_id"] == answer["X-Request-Id"] != ""
    print(f"SEEN {answer.status} {error['code']}: {error['message']}")
    return str(error["code"])


def said(node: Node, app: str, answer: Answer) -> str:
    """What the log holds of that request."""
    request_id = answer["X-Request-Id"]
    return str(until("its log lines", lambda: messages(node, app, request_id)))


def ids(node: Node, app: str) -> set[str]:
    return {one["id"] for one in node.instances() if one["app"] == app}


def test_an_endless_loop_gets_504_after_its_deadline_while_another_app_answers(
    node, brief, kitchen
):
    text(node, kitchen)
    seen: Counter[str] = Counter()
    slowest = 0.0
    over = threading.Event()

    def neighbour() -> None:
        nonlocal slowest
        while not over.is_set():
            # A connection each: they reach the worker that is busy, too.
            answer = get(node, kitchen)
            seen[f"{answer.status} {answer.text.strip()}"] += 1
            slowest = max(slowest, answer.ms)

    until("it is awake", lambda: get(node, brief).status == 200)
    beside = threading.Thread(target=neighbour)
    beside.start()
    try:
        began = time.monotonic()
        answer = get(node, brief, "/spin")
        took = time.monotonic() - began
    finally:
        over.set()
        beside.join()
    print(f"SEEN beside a loop: {dict(seen)}, slowest {slowest:.1f} ms")
    assert answer.status == 504 and shown(answer) == "deadline_exceeded"
    assert 0.95 < took < 20
    assert "deadline of 1000 ms" in said(node, brief, answer)
    assert set(seen) == {"200 hello"} and seen["200 hello"] >= 3
    until("it serves again", lambda: get(node, brief).text == "fine")


def test_a_sleep_past_the_deadline_is_504_too(node, brief):
    until("it is awake", lambda: get(node, brief).status == 200)
    answer = get(node, brief, "/doze")
    assert answer.status == 504 and shown(answer) == "deadline_exceeded"


def test_a_bare_app_without_memory_gets_507_and_its_instance_is_replaced(node, faults):
    node.cli("sleep", faults)
    with Caller(node.gateway_port, faults) as caller:
        assert caller.call().text == "fine"
        before = ids(node, faults)
        answer = caller.call("/hog")
        assert answer.status == 507 and shown(answer) == "memory_limit_exceeded"
        assert caller.call().text == "fine"
        assert not before & ids(node, faults)
    assert "memory limit of 96 MiB" in said(node, faults, answer)


def test_flask_without_memory_answers_its_own_500_and_the_log_names_the_limit(node, flask_faults):
    with Caller(node.gateway_port, flask_faults) as caller:
        assert caller.call().text == "fine"
        before = ids(node, flask_faults)
        answer = caller.call("/hog")
        assert answer.status == 500 and "Internal Server Error" in answer.text
        assert answer["X-Isopod-Error"] == ""
        assert caller.call().text == "fine"
        assert not before & ids(node, flask_faults)
    log = said(node, flask_faults, answer)
    assert "memory limit of 96 MiB" in log and "MemoryError" in log


def test_flask_answers_its_own_500_for_an_exception(node, flask_faults):
    answer = get(node, flask_faults, "/fail")
    assert answer.status == 500 and SECRET not in answer.text
    assert f"RuntimeError: {SECRET}" in said(node, flask_faults, answer)


@pytest.mark.parametrize(
    ("path", "code", "logged"),
    [
        ("/fail", "guest_failed", f"RuntimeError: {SECRET}"),
        ("/recurse", "guest_failed", "RecursionError"),
        ("/leave", "guest_failed", ""),
        ("/leave_politely", "guest_failed", "SystemExit"),
        ("/never", "guest_failed", "start_response"),
        ("/text", "guest_failed", "bytes"),
        ("/short", "guest_protocol_error", "declared 100"),
    ],
)
def test_an_app_that_fails_is_502_with_details_in_its_log_alone(node, faults, path, code, logged):
    answer = get(node, faults, path)
    assert answer.status == 502 and shown(answer) == code
    assert logged in said(node, faults, answer)
    assert text(node, faults) == "fine"


def test_deep_nesting_in_c_ends_the_request_and_not_the_worker(node, faults):
    workers = {worker.pid for worker in node.workers()}
    answer = get(node, faults, "/nest")
    assert answer.status in (502, 507), answer.text
    shown(answer)
    assert text(node, faults) == "fine"
    assert workers == {worker.pid for worker in node.workers()}


def test_a_response_that_fails_midway_is_cut_and_not_ended(node, faults):
    with wire(node, faults) as line:
        line.send("GET /midway HTTP/1.1\r\nHost: HOST\r\n\r\n")
        with pytest.raises(ConnectionError):
            line.response()
    assert text(node, faults) == "fine"


def test_workers_lived_through_all_of_it(node, faults):
    assert "starting it again" not in node.said
