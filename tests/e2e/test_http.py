"""HTTP as clients speak it, well and badly, on a socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
from tests.e2e.nodes import get, until
from tests.e2e.wire import wire

from tools.http_calls import Caller

GET = "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"


def test_head_has_the_headers_and_no_body(node, kitchen):
    with wire(node, kitchen) as line:
        line.send("HEAD /echo HTTP/1.1\r\nHost: HOST\r\n\r\n" + GET)
        head = line.response(method="HEAD")
        assert head.status == 200 and head.headers["content-type"] == "application/json"
        assert line.response().body == b"hello\n"  # nothing of the first was left over


def test_expect_100_continue_is_answered_before_the_body_is_sent(node, kitchen):
    with wire(node, kitchen) as line:
        line.send(
            "POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        assert line.response().status == 100
        line.send(b"12345")
        answer = line.response()
    assert answer.status == 200 and answer.body.startswith(b"5 ")


def test_expect_100_continue_of_a_body_that_is_too_large_is_refused_before_it_is_sent(
    node, kitchen
):
    with wire(node, kitchen) as line:
        line.send(
            "POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: 99999999999\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        assert line.response().status == 413


def test_keep_alive_serves_many_requests_on_one_connection(node, kitchen):
    with wire(node, kitchen) as line:
        for _ in range(50):
            line.send(GET)
            assert line.response().body == b"hello\n"


def test_pipelined_requests_are_answered_in_order(node, kitchen):
    paths = ["/stream", "/a", "/write", "/b", "/c"]
    with wire(node, kitchen) as line:
        line.send("".join(f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n" for path in paths))
        answers = [line.response() for _ in paths]
    assert answers[0].body.startswith(b"piece 0") and answers[2].body.startswith(b"written")
    assert [json.loads(answers[i].body)["path"] for i in (1, 3, 4)] == ["/a", "/b", "/c"]


def test_a_client_that_closes_its_side_has_hung_up(node, kitchen):
    """As for nginx and Go's server: its guest is cancelled, its connection ends. (The HTTP server
    cannot be told to go on: hyper's `half_close`.)"""
    with wire(node, kitchen) as line:
        line.send("GET /endless HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert line.link.recv(100)
        line.link.shutdown(socket.SHUT_WR)
        while line.link.recv(1 << 16):
            pass
    until(
        "no busy instance",
        lambda: all(i["state"] != "busy" for i in node.instances() if i["app"] == kitchen),
    )
    assert get(node, kitchen).text == "hello\n"


def test_http_1_0_is_answered_and_closed(node, kitchen):
    with wire(node, kitchen) as line:
        line.send("GET / HTTP/1.0\r\nHost: HOST\r\n\r\n")
        assert line.response().body == b"hello\n"
        assert line.ended()


def test_websocket_upgrades_are_refused_clearly(node, kitchen):
    with wire(node, kitchen) as line:
        line.send(
            "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = line.response()
    assert answer.status == 501
    assert json.loads(answer.body)["error"]["code"] == "websocket_unsupported"


def test_hop_by_hop_headers_are_removed_both_ways(node, kitchen):
    with wire(node, kitchen) as line:
        line.send(
            "GET /echo HTTP/1.1\r\nHost: HOST\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
            "Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Authorization: Basic eDp5\r\n"
            "X-End: 1\r\nProxy: http://evil\r\nX_Under: 1\r\n\r\n"
        )
        arrived = json.loads(line.response().body)["headers"]
        line.send("GET /hops HTTP/1.1\r\nHost: HOST\r\n\r\n")
        left = line.response().headers
        line.send(GET)
        assert line.response().status == 200  # the app's "Connection: close" is not ours
    assert arrived["HTTP_X_END"] == "1"
    hops = ("CONNECTION", "X_HOP", "KEEP_ALIVE", "TE", "PROXY_AUTHORIZATION", "PROXY", "X_UNDER")
    assert not {f"HTTP_{name}" for name in hops} & set(arrived)
    assert left["x-kept"] == "1" and left["set-cookie"] == "b=2"
    assert not {"keep-alive", "x-secret-hop", "connection"} & set(left)


def test_forwarding_headers_of_a_stranger_are_not_believed(node, kitchen, caller):
    arrived = caller.call(
        "/echo",
        X_Forwarded_For="6.6.6.6",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="evil.example",
        X_Real_IP="6.6.6.6",
        Forwarded="for=6.6.6.6",
        X_Request_Id="mine",
    )
    headers = arrived.json()["headers"]
    assert headers["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert headers["HTTP_X_FORWARDED_PROTO"] == "http"
    assert headers["HTTP_X_FORWARDED_HOST"] == f"{kitchen}.localhost:{node.gateway_port}"
    assert headers["HTTP_X_REQUEST_ID"] == arrived["X-Request-Id"] != "mine"
    assert "6.6.6.6" not in str(headers)


def test_an_unknown_host_is_404_as_html_for_browsers_and_as_json_for_programs(node):
    page = get(node, "nobody", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.status == 404 and page["Content-Type"].startswith("text/html")
    assert "isopod deploy --name nobody" in page.text and page["X-Request-Id"] in page.text
    answer = get(node, "nobody", Accept="*/*")
    assert answer.status == 404
    error = answer.json()["error"]
    assert error["code"] == "app_unknown" and "'nobody.localhost'" in error["message"]
    assert error["request_id"] == answer["X-Request-Id"]


def test_an_unknown_host_cannot_inject_html(node):
    page = get(node, "nobody", Host="<script>alert(1)</script>.localhost", Accept="text/html")
    assert page.status in (400, 404) and "<script>" not in page.text


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_body_past_its_limit_is_413(node, kitchen, framing):
    size = 13 << 20  # the kitchen takes 12 MiB
    with wire(node, kitchen) as line:
        if framing == "declared":
            line.send(f"POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: {size}\r\n\r\n")
        else:
            line.send("POST /upload HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n")
            line.send(b"%x\r\n%s\r\n" % (size, bytes(size)))
        answer = line.response()
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["code"] == "body_too_large"
    assert get(node, kitchen).text == "hello\n"


@pytest.mark.parametrize("shape", ["one header", "many headers", "the request line"])
def test_1_mib_of_headers_is_refused(node, kitchen, shape):
    headers = {
        "one header": f"GET / HTTP/1.1\r\nHost: HOST\r\nX-Large: {'a' * (1 << 20)}\r\n\r\n",
        "many headers": "GET / HTTP/1.1\r\nHost: HOST\r\n"
        + "".join(f"X-Large-{i}: {'a' * 1000}\r\n" for i in range(1050))
        + "\r\n",
        "the request line": f"GET /{'a' * (1 << 20)} HTTP/1.1\r\nHost: HOST\r\n\r\n",
    }
    with wire(node, kitchen) as line:
        try:
            line.send(headers[shape])
            status = line.response().status
        except ConnectionError as cut:
            status = type(cut).__name__
        print(f"SEEN 1 MiB of headers ({shape}): {status}")
        assert status in ((431, 414) if shape == "the request line" else (431,))
        assert line.ended()
    assert get(node, kitchen).text == "hello\n"


MALFORMED = {
    "garbage": b"\x00\x01\x02garbage\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + bytes(64),
    "header without colon": b"GET / HTTP/1.1\r\nHost: HOST\r\nbroken\r\n\r\n",
    "space in header name": b"GET / HTTP/1.1\r\nHost: HOST\r\nX Y: 1\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n",
    "word as length": b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: ten\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2"
    b"\r\n\r\nab",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: other.localhost\r\n\r\n",
    "null in header": b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_http_is_400_and_the_connection_ends_or_goes_on_in_step(node, kitchen, kind):
    with wire(node, kitchen) as line:
        line.send(MALFORMED[kind].replace(b"HOST", line.host.encode()))
        answer = line.response()
        print(f"SEEN malformed ({kind}): {answer.status}")
        assert answer.status == 400
    assert get(node, kitchen).text == "hello\n"


def test_a_body_framed_twice_is_not_smuggled(node, kitchen):
    """RFC 9112 6.3: with both, Transfer-Encoding counts, or the request is refused."""
    with wire(node, kitchen) as line:
        line.send(
            "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            "GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n"
        )
        answer = line.response()
        print(f"SEEN two framings: {answer.status}")
        assert answer.status == 400 or json.loads(answer.body)["length"] == 0


def test_a_slow_client_is_waited_for_while_others_are_served(node, kitchen, caller):
    """Its guest is suspended; the deadline does not count the wait for it."""
    with wire(node, kitchen) as line:
        line.send("POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\n")
        for byte in b"0123456789":
            line.send(bytes([byte]))
            until("another is served", lambda: caller.call().text == "hello\n")
        assert line.response().body.startswith(b"10 ")


def test_a_client_that_reads_slowly_gets_everything(node, kitchen, caller):
    with wire(node, kitchen) as line:
        # More than the sockets' buffers hold: the guest waits for this client.
        line.send("GET /download?40 HTTP/1.1\r\nHost: HOST\r\n\r\n")
        for _ in range(20):
            assert caller.call().text == "hello\n"
        assert len(line.response().body) == 40 << 20


def test_request_ids_differ_and_are_on_errors_too(node, kitchen):
    with Caller(node.gateway_port, kitchen) as caller:
        ids = {caller.call()["X-Request-Id"] for _ in range(5)}
    ids.add(get(node, "nobody")["X-Request-Id"])
    assert len(ids) == 6 and "" not in ids


def test_200_half_sent_requests_do_not_keep_others_out(node, kitchen):
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(wire(node, kitchen)).send("GET / HTTP/1.1\r\nHost: HO")
        began = time.monotonic()
        assert get(node, kitchen).text == "hello\n"
        assert time.monotonic() - began < 14, "they are given up after 15 s"
