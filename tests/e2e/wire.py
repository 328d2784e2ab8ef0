"""HTTP/1.1 as bytes on a socket, for what a well-behaved client never sends."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.e2e.nodes import PATIENCE_S

from tools.node import Node


@dataclass(frozen=True)
class Raw:
    """A response as it came. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection, and the bytes that were read from it but not used."""

    def __init__(self, link: socket.socket, host: str) -> None:
        self.link = link
        self.host = host
        self._left = b""

    def send(self, text: str | bytes) -> None:
        """HOST in a text stands for the app's host name."""
        data = text if isinstance(text, bytes) else text.replace("HOST", self.host).encode()
        self.link.sendall(data)

    def response(self, *, method: str = "GET") -> Raw:
        """The next response, with its body as its headers frame it. ConnectionError at the end."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        status = int(first.split(" ")[1])
        if method == "HEAD" or status in (204, 304) or status < 200:
            return Raw(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Raw(status, headers, self._chunked())
        return Raw(status, headers, self._exactly(int(headers.get("content-length", "0"))))

    def ended(self) -> bool:
        """Whether the other side has closed the connection (waits for it)."""
        try:
            return not self._left and self.link.recv(1) == b""
        except ConnectionError:
            return True

    def _more(self) -> None:
        data = self.link.recv(1 << 16)
        if not data:
            raise ConnectionError(f"the connection ended after {self._left[:200]!r}")
        self._left += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._left:
            self._more()
        found, _, self._left = self._left.partition(mark)
        return found + mark

    def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            self._more()
        found, self._left = self._left[:size], self._left[size:]
        return found

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")
        return body


@contextlib.contextmanager
def wire(node: Node, app: str, *, timeout_s: float = PATIENCE_S) -> Iterator[Wire]:
    address = ("127.0.0.1", node.gateway_port)
    with socket.create_connection(address, timeout=timeout_s) as link:
        yield Wire(link, f"{app}.localhost:{node.gateway_port}")


@dataclass(frozen=True)
class SlowEnd:
    """How the node ended with a client that stopped."""

    after_s: float
    got: bytes


def wait_for_the_end(node: Node, app: str, text: str) -> SlowEnd:
    """Send this and nothing more."""
    began, got = time.monotonic(), b""
    with wire(node, app) as line:
        line.send(text)
        with contextlib.suppress(ConnectionError):
            while data := line.link.recv(1 << 16):
                got += data
    return SlowEnd(time.monotonic() - began, got)
