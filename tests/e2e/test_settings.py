"""What an operator sets: each on a node of its own."""

from __future__ import annotations

import json

from tests.e2e.nodes import APPS, deploy_all, get, text, until, up
from tests.e2e.wire import wire


def test_a_configured_proxy_is_believed_and_the_domain_is_the_operators(data_dir):
    trusting = {"ISOPOD_TRUSTED_PROXIES": "127.0.0.1"}
    with up(data_dir, "--domain", "apps.example", extra_env=trusting) as node:
        done = node.run("deploy", str(APPS / "kitchen"), "--name", "kitchen")
        assert done.stdout == f"http://kitchen.apps.example:{node.gateway_port}/\n"
        assert get(node, "kitchen").status == 404  # .localhost is not its domain
        with wire(node, "kitchen") as line:
            line.send(
                "GET /echo HTTP/1.1\r\nHost: kitchen.apps.example\r\nX-Forwarded-For: 6.6.6.6\r\n"
                "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
                "X-Request-Id: from-the-proxy\r\n\r\n"
            )
            answer = line.response()
        found = json.loads(answer.body)["headers"]
        assert found["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 127.0.0.1"
        assert found["HTTP_X_FORWARDED_PROTO"] == "https"
        assert found["HTTP_X_FORWARDED_HOST"] == "shop.example"
        assert answer.headers["x-request-id"] == "from-the-proxy"


def test_within_the_memory_budget_the_least_recently_used_instance_ends_first(data_dir):
    with up(data_dir, "--memory-budget-mib", "64") as node:
        deploy_all(node, *((str(APPS / "kitchen"), "--name", name) for name in ("one", "two")))

        def apps() -> list[str]:
            return [one["app"] for one in node.instances()]

        assert text(node, "one", "/grow?40") == "grown"
        assert apps() == ["one"]
        assert text(node, "two", "/grow?40") == "grown"
        until("only one fits", lambda: apps() == ["two"])
        assert text(node, "one") == "hello\n"


def test_a_node_without_memory_says_when_to_try_again(deployed):
    with up(deployed, "--memory-budget-mib", "1") as node:
        answer = get(node, "app")
        assert answer.status == 503 and answer["X-Isopod-Error"] == "node_busy"
        assert int(answer["Retry-After"]) >= 1


def test_logs_are_followed_as_they_are_written(deployed):
    with up(deployed) as node:
        following = node.popen("logs", "kitchen", "-f")
        try:
            assert following.stdout is not None
            text(node, "kitchen", "/say")
            seen = ""
            while "said on wsgi.errors" not in seen:
                seen += following.stdout.readline()
            assert "said on stdout" in seen and "said on stderr" in seen
        finally:
            following.terminate()
            following.communicate()
