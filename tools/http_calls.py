"""HTTP to an app of a local node: the address is the loopback's, the name is in `Host`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its whole body. `ms` is from the first byte sent to the last received."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    ms: float

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def __getitem__(self, name: str) -> str:
        """A header, "" when it is not there."""
        return self.headers.get(name, "")

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One keep-alive connection to one app, so that all its calls reach the same worker."""

    def __init__(self, port: int, app: str, *, timeout_s: float = 60) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._host = f"{app}.localhost:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(
        self, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """Header names are given with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        began = time.perf_counter()
        self._connection.request(method, path, body, {"Host": self._host, **sent})
        response = self._connection.getresponse()
        data = response.read()
        ms = (time.perf_counter() - began) * 1000
        return Answer(response.status, response.headers, data, ms)

    def json(self, path: str) -> Any:
        return self.call(path).json()

    def pieces(self, path: str) -> list[bytes]:
        """A streamed response in the pieces that arrived."""
        return list(self.iter_pieces(path))

    def iter_pieces(self, path: str) -> Iterator[bytes]:
        """The same, each when it arrives."""
        self._connection.request("GET", path, headers={"Host": self._host})
        response = self._connection.getresponse()
        while piece := response.read1():
            yield piece


def multipart(field: str, filename: str, data: bytes) -> tuple[bytes, str]:
    """A form with one file, and its content type."""
    boundary = "isopod-demo-boundary"
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        head.encode() + data + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )
