"""Clients that stop in the middle of a request and keep their connection."""

from __future__ import annotations

from tests.e2e.nodes import log, text


def test_a_client_that_never_ends_its_headers_is_given_up(node, kitchen, slow_clients):
    end = slow_clients["header"].result()
    print(f"SEEN headers that never end: {end}")
    assert 10 < end.after_s < 90
    assert end.got == b"" or b" 408 " in end.got


def test_a_client_that_never_ends_its_body_is_408_and_its_instance_serves_others(
    node, kitchen, slow_clients
):
    end = slow_clients["body"].result()
    print(f"SEEN a body that never ends: {end}")
    assert 25 < end.after_s < 90
    assert end.got.startswith(b"HTTP/1.1 408 ") and b'"client_too_slow"' in end.got
    assert any("client_too_slow" in line["message"] for line in log(node, kitchen))
    assert text(node, kitchen) == "hello\n"
