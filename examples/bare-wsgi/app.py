"""PEP 3333 without a framework: text, a stream and an echo. Natively: `python app.py`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import make_server

Headers = list[tuple[str, str]]


def count() -> Iterator[bytes]:
    """Each line is sent before the next one is made."""
    for number in range(1, 6):
        yield f"line {number} of 5\n".encode()


def echo(environ: dict[str, Any]) -> Iterator[bytes]:
    """The request's body, piece by piece: it is never whole in memory."""
    body, left = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
    while left and (piece := body.read(min(left, 64 * 1024))):
        left -= len(piece)
        yield piece


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    text: Headers = [("content-type", "text/plain; charset=utf-8")]
    if path == "/stream" and method == "GET":
        start_response("200 OK", text)
        return count()
    if path == "/echo" and method == "POST":
        kind = environ.get("CONTENT_TYPE") or "application/octet-stream"
        start_response("200 OK", [("content-type", kind)])
        return echo(environ)
    if path == "/" and method == "GET":
        start_response("200 OK", text)
        return [b"Hello from plain WSGI! Try /stream, or POST to /echo.\n"]
    start_response("404 Not Found", text)
    return [b"Nothing here.\n"]


if __name__ == "__main__":
    make_server("127.0.0.1", 8000, application).serve_forever()
