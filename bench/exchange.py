"""One whole HTTP exchange on a connection of its own, over a raw socket."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Exchange:
    """`ms` is from before the connection was opened to the last byte of the response."""

    status: int
    head: str
    body: bytes
    ms: float

    def server_timing(self) -> dict[str, float]:
        """Milliseconds by name."""
        found = re.search(r"(?im)^server-timing: (.*)$", self.head)
        pairs = re.findall(r"([\w-]+);dur=([\d.]+)", found[1]) if found else []
        return {name: float(value) for name, value in pairs}


def ask(port: int, hostname: str, path: str = "/", *, timeout_s: float = 30) -> Exchange:
    """Raises OSError when nobody answers."""
    request = f"GET {path} HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n".encode()
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(request)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
    ms = (time.perf_counter() - began) * 1e3
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        raise ConnectionResetError("the connection was closed without a response")
    return Exchange(int(head[9:12]), head.decode("latin-1").replace("\r", ""), body, ms)


def right(port: int, hostname: str, path: str = "/", *, timeout_s: float = 30) -> Exchange:
    """As `ask`; RuntimeError when the answer is not a 200."""
    answer = ask(port, hostname, path, timeout_s=timeout_s)
    if answer.status != 200:
        raise RuntimeError(f"{hostname}{path} answered {answer.status}: {answer.body[:300]!r}")
    return answer


def admin(run_dir: Path, question: dict[str, Any]) -> list[dict[str, Any]]:
    """What the workers of a node answer on their admin sockets."""
    answers = []
    for path in sorted(run_dir.glob("worker-*.sock")):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            line.connect(str(path))
            line.sendall(json.dumps(question).encode() + b"\n")
            with line.makefile("rb") as reader:
                answers.append(json.loads(reader.readline()))
    return answers
