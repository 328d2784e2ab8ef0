"""Async apps on a real node: four frameworks, streams, clients that go, and what is billed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.nodes import APPS, deploy_all, log, messages, until, up

from tools.http_calls import Caller

MIB = 1 << 20


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """With one worker, so that one instance can have all requests."""
    with up(tmp_path_factory.mktemp("asgi") / "data", workers=1) as node:
        frameworks = ("starlette", "fastapi", "quart", "django")
        deploy_all(
            node, *((str(APPS / f"asgi_{name}"), "--name", name, "--strict") for name in frameworks)
        )
        yield node


def at_once(node, count, path):
    def ask(_):
        with Caller(node.gateway_port, "starlette") as caller:
            return caller.call(path)

    began = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(ask, range(count)))
    return answers, time.monotonic() - began


def test_four_frameworks_answer(node):
    with Caller(node.gateway_port, "starlette") as caller:
        first = caller.json("/")
        assert first["starts"] == 2, "once in the build, and in each instance"
        assert first["age"] < 300
        assert caller.call("/echo", "POST", bytes(3 * MIB)).text == str(3 * MIB)
    with Caller(node.gateway_port, "fastapi") as caller:
        assert caller.json("/") == {"fastapi": True}
        sent = caller.call("/items", "POST", b'{"name": "x", "price": 2}')
        assert sent.json() == {"name": "x", "twice": 4.0, "n": 7}
        assert caller.call("/items", "POST", b'{"name": "x"}').status == 422
    with Caller(node.gateway_port, "quart") as caller:
        assert caller.json("/") == {"quart": True}
        assert caller.call("/echo", "POST", b"x" * 1000).text == "1000"
    with Caller(node.gateway_port, "django") as caller:
        assert caller.call("/").text == "async"
        assert caller.call("/echo", "POST", b"x" * 1000).text == "sync 1000"
    until("the task after the response", lambda: "quart worked on" in messages(node, "quart"))
    assert not [line for line in log(node, "django") if line["stream"] == "stderr"]


def test_one_instance_has_fifty_requests_at_once_and_more_start_when_they_block(node):
    with Caller(node.gateway_port, "starlette") as caller:
        caller.call("/")
    answers, seconds = at_once(node, 50, "/sleep")
    assert {answer.status for answer in answers} == {200}
    assert seconds < 14, "one after the other, they take 15 s"
    with ThreadPoolExecutor(1) as pool, Caller(node.gateway_port, "starlette") as caller:
        one = caller.call("/block?0").text
        blocked = pool.submit(at_once, node, 1, "/block?2")
        # Who comes while an instance is blocked gets another.
        until("another instance", lambda: caller.call("/block?0").text != one)
        (first,), _ = blocked.result()
        assert (first.status, first.text) == (200, one)


def test_events_arrive_as_they_are_made_and_a_client_may_go(node):
    with Caller(node.gateway_port, "starlette") as caller:

        def apart() -> bool:
            times = [time.monotonic() for _ in caller.iter_pieces("/events?n=4")]
            assert len(times) == 4
            return times[-1] - times[0] > 0.25

        until("they come apart: this process may have been asleep meanwhile", apart)
        # Longer than the deadline of 4 s, which each piece has to itself.
        assert len(list(caller.iter_pieces("/events?n=45"))) == 45
    ended = messages(node, "starlette").count("the stream ended")
    with Caller(node.gateway_port, "starlette") as caller:
        pieces = caller.iter_pieces("/events?n=1000")
        assert next(pieces) == b"data: 0\n\n"
    until(
        "the end of a stream whose client went",
        lambda: messages(node, "starlette").count("the stream ended") > ended,
    )
    with Caller(node.gateway_port, "starlette") as caller:
        assert caller.call("/later").text == "at once"
    until("work after the response", lambda: "worked on" in messages(node, "starlette"))


def test_what_never_answers_and_what_never_yields_gets_504_and_others_go_on(node):
    with Caller(node.gateway_port, "starlette") as caller, ThreadPoolExecutor(1) as pool:
        never = pool.submit(at_once, node, 1, "/never")
        assert caller.call("/").status == 200
        assert [answer.status for answer in never.result()[0]] == [504]
        assert caller.json("/")["starts"] == 2
        assert caller.call("/spin").status == 504
        assert caller.call("/").status == 200
