"""Raw bytes at the gateway of a real node, with an app behind it."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tools import node as nodes
from tools.fuzz.target import Finding, Target, mutate
from tools.http_calls import Caller
from tools.node import Node

_APP = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d bytes" % len(body)]
"""
_HOST = b"Host: target.localhost\r\n"
_REQUESTS = [
    b"GET / HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"POST /a?b=c HTTP/1.1\r\n" + _HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"GET / HTTP/1.0\r\n" + _HOST + b"Connection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET http://target.localhost/x HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /%2e%2e/%00%ff HTTP/1.1\r\n" + _HOST + b"X-Request-Id: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + _HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\x0d\1\5\0\0\0\1\x82\x86\x84\x41\x88",
]
_WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b" ", b"\t", b":", b"Host: other.localhost\r\n"),
    *(
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(
        b"Content-Length: 0x5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ),
    *(b"Connection: host, content-length\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"X: " + b"y" * 70_000),
    *(
        b"X-Forwarded-For: 1\r\n",
        b"Proxy: x\r\n",
        b"a_b: c\r\n",
        b"HTTP/9.9",
        b"\x80\xff",
        b"/" * 9000,
    ),
]
_ANSWER_S = 20.0
_LOOK_EVERY = 200


def _generate(chance: random.Random) -> bytes:
    data = b"".join(chance.choice(_REQUESTS) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    return mutate(chance, data, _WORDS) if chance.random() < 0.95 else data


@contextlib.contextmanager
def _open(work: Path) -> Iterator[Callable[[bytes], None]]:
    folder = work / "target"
    folder.mkdir()
    (folder / "app.py").write_text(_APP)
    with nodes.running(workers=1) as node:
        node.cli("deploy", str(folder), "--name", "target")
        before = [worker.pid for worker in node.workers()]
        inputs = 0

        def run(data: bytes) -> None:
            nonlocal inputs
            _exchange(node.gateway_port, data)
            inputs += 1
            if inputs % _LOOK_EVERY == 0:
                _look(node, before)

        yield run
        _look(node, before)


def _exchange(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as line:
        answer = b""
        # A server may refuse before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(data)
            with contextlib.suppress(OSError):  # closed already
                line.shutdown(socket.SHUT_WR)
            while piece := line.recv(65536):
                answer += piece
    # HTTP/2 frames begin with a length of three bytes.
    if answer and not answer.startswith((b"HTTP/1.", b"\0")):
        raise Finding(f"an answer that is not HTTP: {answer[:60]!r}")


def _look(node: Node, before: list[int]) -> None:
    if [worker.pid for worker in node.workers()] != before:
        raise Finding("a worker was replaced")
    with Caller(node.gateway_port, "target") as caller:
        answer = caller.call("/", "POST", b"12345")
    if (answer.status, answer.text) != (200, "5 bytes"):
        raise Finding(f"a good request got {answer.status}: {answer.text[:100]!r}")


TARGET = Target("gateway", _generate, _open, longest_s=25)
