"""The request that a new version must answer."""

import pytest
from tests.unit.runtimes.workers import Workshop, worker

from isopod.errors import AppFailedToStart, DeadlineExceeded, HealthFailed
from isopod.model.app import AppSpec, Health, Limits
from isopod.model.ids import AppName
from isopod.runtimes.javascript.building import check_health


@pytest.fixture(scope="module")
def check(prepared_javascript, tmp_path_factory):
    tmp_root = tmp_path_factory.mktemp("tmp")
    with Workshop(prepared_javascript, tmp_path_factory.mktemp("health")) as shop:

        def checked(body, before="console.log('hello')", deadline_ms=5000):
            spec = AppSpec(AppName("x"), "javascript", "worker.js", health=Health("/up?a=b"),
                           limits=Limits(memory_mib=64, deadline_ms=deadline_ms))  # fmt: skip
            site = shop.site(worker(body, before))
            return check_health(shop.runtime, site_tree=site, spec=spec, tmp_root=tmp_root)

        yield checked


def test_an_answer_below_500_is_health(check):
    result = check("return new Response(request.url, { status: 404 })")
    assert (result.status, result.output) == (404, "hello\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return new Response('', { status: 503 })", "answered GET /up?a=b with 503"),
        ("throw new Error('boom')", "failed to answer GET /up?a=b"),
    ],
)
def test_an_answer_of_500_and_an_exception_fail_with_what_was_printed(check, body, message):
    with pytest.raises(HealthFailed, match=message.replace("?", "[?]")) as caught:
        check(body)
    assert "hello" in caught.value.details["traceback"]


def test_an_app_that_does_not_start_says_why(check):
    with pytest.raises(AppFailedToStart) as caught:
        check("", before="console.log('hello'); throw new Error('boom')")
    assert "boom" in str(caught.value.details["traceback"])
    assert caught.value.details["output"] == "hello\n"


def test_an_app_that_does_not_answer_is_told_what_helps(check):
    with pytest.raises(DeadlineExceeded, match="did not start and answer GET /up") as caught:
        check("await new Promise((done) => setTimeout(done, 60_000))", deadline_ms=100)
    assert caught.value.hint == "do less when the module is loaded, or raise limits.deadline_ms"
    assert caught.value.details["traceback"] == "hello\n"
