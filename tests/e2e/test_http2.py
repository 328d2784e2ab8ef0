"""HTTP/2 without TLS, by prior knowledge (RFC 9113 3.3)."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator

import pytest
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from tests.e2e.nodes import PATIENCE_S


class Http2:
    """One connection; answers by stream."""

    def __init__(self, link: socket.socket, host: str) -> None:
        self.link, self.host = link, host
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.reset: dict[int, int] = {}
        self.h2.initiate_connection()
        self._flush()

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", self.host)]
        head += [(":path", path)]
        self.h2.send_headers(stream, head, end_stream=body is None)
        self.bodies[stream] = b""
        while body:
            size = min(self.h2.local_flow_control_window(stream), 16_000, len(body))
            if size:
                self.h2.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
                self._flush()
            else:
                self._read()
        self._flush()
        return stream

    def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        while stream not in self.done:
            self._read()
        return self.heads[stream], self.bodies[stream]

    def give_up(self, stream: int) -> None:
        self.h2.reset_stream(stream)
        self._flush()

    def _read(self) -> None:
        data = self.link.recv(1 << 16)
        assert data, "the connection ended"
        for event in self.h2.receive_data(data):
            if isinstance(event, events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, events.StreamEnded):
                self.done.add(event.stream_id)
            elif isinstance(event, events.StreamReset):
                self.reset[event.stream_id] = event.error_code
                self.done.add(event.stream_id)
        self._flush()

    def _flush(self) -> None:
        self.link.sendall(self.h2.data_to_send())


@pytest.fixture
def http2(node, kitchen) -> Iterator[Http2]:
    with socket.create_connection(("127.0.0.1", node.gateway_port), timeout=PATIENCE_S) as link:
        yield Http2(link, f"{kitchen}.localhost:{node.gateway_port}")


def test_requests_share_a_connection_and_a_slow_one_holds_up_no_other(http2):
    slow = http2.ask("/sleep?25")
    quick = [http2.ask(f"/{number}") for number in range(20)]
    for number, stream in enumerate(quick):
        head, body = http2.answer(stream)
        assert head[":status"] == "200" and "server-timing" in head and "x-request-id" in head
        assert json.loads(body)["path"] == f"/{number}"
        assert json.loads(body)["protocol"] == "HTTP/2"
    assert slow not in http2.done
    http2.give_up(slow)
    assert http2.answer(http2.ask("/sleep?0.1"))[1] == b"slept"


def test_bodies_pass_both_ways_under_flow_control(http2):
    body = os.urandom(2 << 20)
    _, answer = http2.answer(http2.ask("/upload", "POST", body))
    assert answer.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    _, answer = http2.answer(http2.ask("/download?3"))
    assert answer == bytes(range(256)) * 1024 * 12


def test_head_and_204_have_no_body(http2):
    head, body = http2.answer(http2.ask("/", "HEAD"))
    assert head[":status"] == "200" and body == b""
    head, body = http2.answer(http2.ask("/empty"))
    assert head[":status"] == "204" and body == b""


def test_headers_of_a_connection_are_not_sent(http2):
    head, body = http2.answer(http2.ask("/hops"))
    assert body == b"hops" and head["x-kept"] == "1"
    assert not {"connection", "keep-alive", "x-secret-hop"} & set(head)


def test_a_stream_that_fails_midway_is_reset_and_the_connection_lives(node, faults, http2):
    kitchen, http2.host = http2.host, http2.host.replace("kitchen", faults)
    stream = http2.ask("/midway")
    http2.answer(stream)
    assert stream in http2.reset
    http2.host = kitchen
    assert http2.answer(http2.ask("/"))[1] == b"hello\n"
