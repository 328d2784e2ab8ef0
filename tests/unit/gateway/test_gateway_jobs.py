"""A job's request and a command's output, before any guest has to do with it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.commands import Tail
from isopod.gateway.job_request import JOB_SCOPE, JobScope, request_job


def asked(status: int, *headers: tuple[bytes, bytes], cut: bool = False):
    """What a gateway was asked that answers so, and the outcome."""
    scopes = []

    async def serve(scope, receive, send):
        scopes.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        if cut:
            raise RuntimeError("cut")
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": False})

    async def main():
        return await request_job(
            serve,
            host="shop.localhost",
            job="tidy",
            path="/tidy?a=1&b=%2F",
            timeout_s=1.5,
            gone=asyncio.Event(),
        )

    return scopes, asyncio.run(main())


def test_a_jobs_request_is_an_empty_post_with_the_jobs_deadline():
    scopes, outcome = asked(
        204, (b"x-request-id", b"r1"), (b"server-timing", b"queue;dur=0.10, guest;dur=2.50")
    )
    (scope,) = scopes
    assert (scope["method"], scope["raw_path"], scope["query_string"]) == (
        *("POST", b"/tidy", b"a=1&b=%2F"),
    )
    assert dict(scope["headers"])[b"host"] == b"shop.localhost"
    assert scope[JOB_SCOPE] == JobScope("tidy", 1500)
    assert scope[JOB_SCOPE].headers == (("x-isopod-job", "tidy"),)
    assert (outcome.code, outcome.status, outcome.request_id) == ("ok", 204, "r1")
    assert outcome.cpu_ms == 2.5


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (302, (), "job_failed"),
        (500, (), "job_failed"),
        (504, ((b"x-isopod-error", b"deadline_exceeded"),), "deadline_exceeded"),
        (500, ((b"x-isopod-error", b"<b>what an app may say</b>"),), "job_failed"),
        (500, ((b"server-timing", b"guest;dur=1.2.3.4"),), "job_failed"),
    ],
)
def test_any_other_answer_is_a_failure_with_a_code(status, headers, code):
    _, outcome = asked(status, *headers)
    assert (outcome.code, outcome.status) == (code, status)


def test_an_answer_that_breaks_off_is_a_failure():
    _, outcome = asked(200, cut=True)
    assert (outcome.code, outcome.message) == ("job_failed", "the answer broke off")


@pytest.mark.parametrize(
    "body",
    [
        *(1, [], {}, {"name": "a"}, {"name": "a", "deadline_ms": 1, "more": 1}),
        *({"name": "a\r\nx: y", "deadline_ms": 1}, {"name": 1, "deadline_ms": 1}),
        *({"name": "a", "deadline_ms": True}, {"name": "a", "deadline_ms": 0}),
        {"name": "a", "deadline_ms": 10**9},
    ],
)
def test_what_another_worker_calls_a_job_is_checked(body):
    with pytest.raises(ValueError, match="a job"):
        JobScope.from_json(body)


def test_a_job_comes_through_another_worker_as_it_is():
    job = JobScope("tidy", 1500)
    assert JobScope.from_json(job.to_json()) == job
    assert JobScope.from_json(None) is None


@given(st.lists(st.binary(max_size=30)), st.integers(1, 40))
def test_of_an_output_the_end_is_kept(pieces, size):
    tail = Tail(size)
    for piece in pieces:
        tail.add(piece)
    assert tail.text() == b"".join(pieces)[-size:].decode("utf-8", "replace")
