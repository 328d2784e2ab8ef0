"""A load generator in a process of its own, so that the client's CPU time is not the server's.

Raw sockets and one selector: as little work per request as Python can do. Started by `generate`;
the job goes in as JSON on standard input and the result comes back as JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """`requests` in all over `connections` at once. Without `keep_alive` each request opens its
    own connection, and its latency includes that."""

    port: int
    hostname: str
    requests: int
    connections: int = 1
    keep_alive: bool = True
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Load:
    """What came back. Latencies in ms, in the order of completion; errors by what happened."""

    seconds: float
    latencies_ms: list[float]
    errors: dict[str, int]

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds


def generate(job: Job) -> Load:
    """Runs the job in a new process."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return Load(**json.loads(done.stdout))


class Client:
    """One connection that asks again as soon as it was answered."""

    def __init__(self, job: Job) -> None:
        self.job = job
        kind = "keep-alive" if job.keep_alive else "close"
        self.request = (
            f"GET {job.path} HTTP/1.1\r\nHost: {job.hostname}\r\nConnection: {kind}\r\n\r\n"
        ).encode()
        self.socket: socket.socket | None = None
        self.buffer = b""
        self.began = 0.0
        self.asked = 0

    def ask(self, selector: selectors.BaseSelector) -> None:
        self.began = time.perf_counter()
        self.buffer = b""
        new = self.socket is None and self.connect()
        assert self.socket is not None
        if new:
            selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.request)

    def connect(self) -> bool:
        """Whether that was needed. Not yet known to a selector."""
        if self.socket is not None and not self._closed_by_server():
            return False
        self.socket = socket.create_connection(("127.0.0.1", self.job.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)  # a request fits the buffer; reads follow a selector
        return True

    def _closed_by_server(self) -> bool:
        assert self.socket is not None
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, selector: selectors.BaseSelector) -> None:
        """One request on a connection that no selector knows."""
        self.began = time.perf_counter()
        self.buffer = b""
        self.connect()
        assert self.socket is not None
        selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.request)

    def hang_up(self, selector: selectors.BaseSelector) -> None:
        if self.socket is not None:
            selector.unregister(self.socket)
            self.socket.close()
            self.socket = None

    def read(self) -> str | None:
        """None: not whole yet; "" : a right answer; otherwise what was wrong."""
        assert self.socket is not None
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            return type(error).__name__
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return None if data else "closed early"
        lower = head.lower()
        _, found, rest = lower.partition(b"\r\ncontent-length:")
        if found:
            whole = len(body) >= int(rest.partition(b"\r\n")[0])
        else:
            whole = body.endswith(b"0\r\n\r\n") if b"chunked" in lower else not data
        if not whole:
            return None if data else "closed early"
        return "" if head[9:12] == b"200" else head[9:12].decode(errors="replace")

    @property
    def server_closes(self) -> bool:
        return b"connection: close" in self.buffer.partition(b"\r\n\r\n")[0].lower()


def _run(job: Job) -> Load:
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    errors: dict[str, int] = {}
    left = job.requests
    began = time.perf_counter()
    for _ in range(min(job.connections, left)):
        Client(job).ask(selector)
        left -= 1
    while selector.get_map():
        ready = selector.select(timeout=60)
        if not ready:
            errors["no answer in 60 s"] = len(selector.get_map())
            break
        for key, _ in ready:
            client: Client = key.data
            verdict = client.read()
            if verdict is None:
                continue
            if verdict:
                errors[verdict] = errors.get(verdict, 0) + 1
            else:
                latencies.append((time.perf_counter() - client.began) * 1000)
            if verdict or left == 0 or not job.keep_alive or client.server_closes:
                client.hang_up(selector)
            if left:
                left -= 1
                client.ask(selector)
    return Load(time.perf_counter() - began, latencies, errors)


if __name__ == "__main__":
    print(json.dumps(asdict(_run(Job(**json.loads(sys.stdin.read()))))))
