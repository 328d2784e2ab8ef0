"""WebSockets: thousands that are open without an instance, and messages to one that has one or not.

The clients are plain sockets of this process: what they cost is not in the figures.
"""

from __future__ import annotations

import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure, Result, percentile
from tools import processes
from tools.node import Node, running

OPEN = 5000
ECHOES = 1000
FIRST = 30
_APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
"""
_MANIFEST = """
[app]
name = "echo"
[scaling]
idle_s = 0.2
concurrency = 1000
[websocket]
hibernate = true
"""
_HELLO = b"\x81\x85\x00\x00\x00\x00hello"  # masked with nothing
_BACK = b"\x81\x05hello"


def run(say: Callable[[str], None]) -> Result:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients: list[socket.socket] = []
    with tempfile.TemporaryDirectory(prefix="isopod-sockets-") as folder, running() as node:
        (Path(folder) / "app.py").write_text(_APP)
        (Path(folder) / "isopod.toml").write_text(_MANIFEST)
        say("deploying")
        node.cli("deploy", folder)
        try:
            return _measure(node, clients, say)
        finally:
            for client in clients:
                client.close()


def _measure(node: Node, clients: list[socket.socket], say: Callable[[str], None]) -> Result:
    awake, first = [], []
    clients.append(_open(node))
    for _ in range(3):
        _echo(clients[0])
    _until_asleep(node)
    empty = _mib(node)
    say(f"opening {OPEN:,}")
    began = time.monotonic()
    while len(clients) < OPEN:
        clients.append(_open(node))
    opened_s = time.monotonic() - began
    _until_asleep(node)
    asleep = _mib(node)
    say("first messages")
    for number in range(FIRST):
        client = clients[number * (OPEN // FIRST)]
        began = time.perf_counter()
        _echo(client)
        first.append((time.perf_counter() - began) * 1e3)
        _until_asleep(node)
    say("echoes")
    for _ in range(ECHOES):
        began = time.perf_counter()
        _echo(clients[0])
        awake.append((time.perf_counter() - began) * 1e3)
    say("every one of them, one after the other")
    began = time.monotonic()
    for client in clients:
        _echo(client)
    all_s = time.monotonic() - began
    figures = [
        Figure(f"memory of the whole node, {OPEN:,} open and asleep (Pss)", asleep, "MiB", 400),
        Figure("the same with one", empty, "MiB"),
        Figure("for each", (asleep - empty) * 1024 / OPEN, "KiB"),
        Figure("echo, awake, p50", statistics.median(awake), "ms", 5),
        Figure("echo, awake, p99", percentile(awake, 99), "ms"),
        Figure(
            "first message to an app without an instance, p50", statistics.median(first), "ms", 15
        ),
        Figure("its slowest", max(first), "ms"),
        Figure(f"to open {OPEN:,}, one after the other", opened_s, "s"),
        Figure("an echo from each, one after the other", all_s, "s"),
    ]
    return Result("websockets", figures, {"awake_ms": awake, "first_ms": first})


def _open(node: Node) -> socket.socket:
    for _ in range(20):
        link = socket.create_connection(("127.0.0.1", node.gateway_port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(
            f"GET /ws HTTP/1.1\r\nHost: echo.localhost:{node.gateway_port}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head and (more := link.recv(4096)):
            head += more
        if head.startswith(b"HTTP/1.1 101"):
            return link
        link.close()  # that worker has no room left; the other may
    raise RuntimeError(f"refused: {head[:300]!r}")


def _echo(link: socket.socket) -> None:
    link.sendall(_HELLO)
    got = b""
    while len(got) < len(_BACK):
        more = link.recv(4096)
        if not more:
            raise RuntimeError("the WebSocket was closed")
        got += more.replace(b"\x89\x00", b"")  # a ping
    if got != _BACK:
        raise RuntimeError(f"another answer: {got!r}")


def _until_asleep(node: Node) -> None:
    end = time.monotonic() + 60
    while node.instances():
        if time.monotonic() > end:
            raise RuntimeError("the app does not hibernate")
        time.sleep(0.05)


def _mib(node: Node) -> float:
    pids = [node.process.pid, *(child.pid for child in node.children())]
    return sum(processes.memory_kib(pid)["Pss"] for pid in pids) / 1024
