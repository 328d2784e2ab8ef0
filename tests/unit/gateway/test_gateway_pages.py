import json

import pytest

from isopod import errors
from isopod.gateway.pages import error_page, wants_html
from isopod.gateway.timing import Timing, no_guest

HTML, JSON = "text/html,application/xhtml+xml,*/*;q=0.8", "application/json"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (HTML, True),
        ("text/html;q=0.5, application/json", False),
        ("TEXT/HTML", True),
        ("application/json, text/html", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0", False),
        ("text/html;q=nan", False),
        ("text/html;q=many", False),
        ("," * 60_000, False),
    ],
)
def test_browsers_get_html_and_programs_json(accept, html):
    assert wants_html(accept) is html


@pytest.mark.parametrize("kind", errors.ERRORS.values())
@pytest.mark.parametrize("accept", [HTML, JSON])
def test_every_error_has_a_page_that_tells_strangers_nothing_of_ours(kind, accept):
    secret = "/var/hoard <script>"
    status, headers, body = error_page(
        kind(f"something with {secret}", hint=secret, details={"traceback": secret}),
        request_id="id-1",
        accept=accept,
    )
    assert 400 <= status < 600
    assert (b"content-length", str(len(body)).encode()) in headers
    assert (b"x-isopod-error", kind.code.encode()) in headers
    text = body.decode()
    assert "id-1" in text
    assert kind.code in text
    if kind.whose != "caller":
        assert "hoard" not in text
    if accept == HTML:
        assert "<script>" not in text
    else:
        assert json.loads(text)["error"]["request_id"] == "id-1"


@pytest.mark.parametrize(
    "code",
    [
        *("overloaded", "node_busy", "node_draining", "too_many_requests", "app_starting"),
        *("machine_code_full", "module_too_costly"),
    ],
)
def test_who_may_try_again_is_told_when(code):
    _, headers, _ = error_page(errors.ERRORS[code]("x"), request_id="", accept="")
    assert b"retry-after" in dict(headers)


@pytest.mark.parametrize(("seconds", "told"), [(0, b"1"), (0.2, b"1"), (2.01, b"3"), (60, b"60")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds, told):
    error = errors.TooManyRequests("x", details={"retry_after_s": seconds})
    _, headers, _ = error_page(error, request_id="", accept="")
    assert dict(headers)[b"retry-after"] == told


@pytest.mark.parametrize("code", ["quota_exceeded", "tenant_suspended", "too_many_requests"])
@pytest.mark.parametrize("accept", [HTML, JSON])
def test_a_visitor_learns_neither_the_tenant_nor_its_quota(code, accept):
    details = {"quota": "cpu_s_per_day", "limit": 7777, "used": 8888}
    error = errors.ERRORS[code]("tenant 'acme' used 8888 of 7777", details=details)
    status, headers, body = error_page(error, request_id="", accept=accept)
    told = body + b"".join(value for _, value in headers)
    assert status == errors.ERRORS[code].status
    for secret in (b"acme", b"7777", b"8888", b"cpu_s", b"operator"):
        assert secret not in told


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("guest_failed", 502),
        ("app_failed_to_start", 502),
        ("deadline_exceeded", 504),
        ("memory_limit_exceeded", 507),
        ("overloaded", 503),
        ("body_too_large", 413),
        ("app_unknown", 404),
        ("engine_error", 500),
    ],
)
def test_statuses_are_as_documented(code, status):
    assert error_page(errors.ERRORS[code]("x"), request_id="", accept="")[0] == status


def test_timing_splits_the_wall_clock():
    timing = Timing(queue_ms=1.0, start_ms=2.0, guest_ms=3.0)
    timing.began -= 0.5
    parts = dict(part.split(";dur=") for part in timing.header().split(", "))
    assert (parts["queue"], parts["start"], parts["guest"]) == ("1.00", "2.00", "3.00")
    assert 497 <= float(parts["wait"]) < 5000
    assert [part.split(";")[0] for part in no_guest().split(", ")] == list(parts)


def test_more_cpu_than_wall_clock_is_no_negative_wait():
    assert "wait;dur=0.00" in Timing(guest_ms=1e6).header()
