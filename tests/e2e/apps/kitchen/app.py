"""A bare WSGI app with a route for everything that HTTP tests ask of an app.

With VALIDATE=1 it runs under `wsgiref.validate`, and what that reports is an error.
"""

import hashlib
import itertools
import json
import os
import sys
import time
import uuid
import warnings

INSTANCE = uuid.uuid4().hex
BLOCK = bytes(range(256)) * 1024  # 256 KiB
TEXT = [("Content-Type", "text/plain")]
KEPT = []
_requests = itertools.count(1)


def hello(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"hello\n"]


def echo(environ, start_response):
    """What arrived, as JSON."""
    body = environ["wsgi.input"].read(1 << 24)
    found = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "protocol": environ["SERVER_PROTOCOL"],
        "client": environ["REMOTE_ADDR"],
        "scheme": environ["wsgi.url_scheme"],
        "headers": {k: v for k, v in environ.items() if k.startswith("HTTP_")},
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "env": {k: v for k, v in os.environ.items() if k.startswith("E2E_")},
        "instance": INSTANCE,
        "request": next(_requests),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]


def upload(environ, start_response):
    """Read in pieces: the size and sha256 of the body."""
    size, seen = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(100_000):
        size += len(piece)
        seen.update(piece)
    start_response("200 OK", TEXT)
    return [f"{size} {seen.hexdigest()}".encode()]


def download(environ, start_response):
    blocks = int(environ["QUERY_STRING"]) * 4  # MiB
    start_response("200 OK", TEXT)
    return (BLOCK for _ in range(blocks))


def stream(environ, start_response):
    """Five pieces, 0.1 s apart."""
    start_response("200 OK", TEXT)
    return _pieces()


def _pieces():
    for number in range(5):
        if number:
            time.sleep(0.1)
        yield f"piece {number}\n".encode()


def write(environ, start_response):
    """The callable that `start_response` returns, then an iterable."""
    send = start_response("200 OK", TEXT)
    send(b"written ")
    time.sleep(0.1)
    send(b"first, ")
    return [b"then returned"]


def sleep(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", TEXT)
    return [b"slept"]


def grow(environ, start_response):
    """Keep so many MiB for good."""
    KEPT.append(b"x" * (int(environ["QUERY_STRING"]) << 20))
    start_response("200 OK", TEXT)
    return [b"grown"]


def endless(environ, start_response):
    """Streams until its client hangs up, and says so."""
    start_response("200 OK", TEXT)
    return Endless()


class Endless:
    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(0.02)
        return b"more\n"

    def close(self):
        print("the endless stream was closed")


def hops(environ, start_response):
    """Headers that an app has no business to send on."""
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/plain"),
            ("Connection", "close, X-Secret-Hop"),
            ("Keep-Alive", "timeout=99"),
            ("X-Secret-Hop", "1"),
            ("X-Kept", "1"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
        ],
    )
    return [b"hops"]


def say(environ, start_response):
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    environ["wsgi.errors"].write("said on wsgi.errors\n")
    start_response("200 OK", TEXT)
    return [b"said"]


def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


ROUTES = {
    "/": hello,
    "/echo": echo,
    "/upload": upload,
    "/download": download,
    "/stream": stream,
    "/write": write,
    "/sleep": sleep,
    "/grow": grow,
    "/endless": endless,
    "/hops": hops,
    "/say": say,
    "/empty": empty,
}


def app(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], echo)(environ, start_response)


if os.environ.get("VALIDATE"):
    from wsgiref.validate import WSGIWarning, validator

    warnings.simplefilter("error", WSGIWarning)
    app = validator(app)
