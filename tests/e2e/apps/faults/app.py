"""A bare WSGI app that fails in every way an app can."""

import os
import time

TEXT = [("Content-Type", "text/plain")]
SECRET = "a detail that no stranger may see"


def spin():
    while True:
        pass


def hog():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def fail():
    raise RuntimeError(SECRET)


def leave():
    os._exit(3)


def leave_politely():
    raise SystemExit(3)


def recurse(depth=0):
    return recurse(depth + 1) + 1


def nest():
    """Deeper than Python's own limit: C recursion, in the guest's stack."""
    nested = []
    for _ in range(1_000_000):
        nested = [nested]
    return repr(nested)


def doze():
    time.sleep(60)


ROUTES = {
    f"/{function.__name__}": function
    for function in (spin, hog, fail, leave, leave_politely, recurse, nest, doze)
}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path in ROUTES:
        ROUTES[path]()
    if path == "/short":
        start_response("200 OK", [*TEXT, ("Content-Length", "100")])
        return [b"less"]
    if path == "/never":
        return [b"start_response was not called"]
    if path == "/text":
        start_response("200 OK", TEXT)
        return ["not bytes"]
    if path == "/midway":
        start_response("200 OK", TEXT)
        return _midway()
    start_response("200 OK", TEXT)
    return [b"fine"]


def _midway():
    yield b"x" * 1000
    yield b"y"
    raise RuntimeError(SECRET)
