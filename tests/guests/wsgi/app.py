# ruff: noqa: PTH123, PTH211, PLW0108
"""An app that does what its path says, for the tests of the WSGI server."""

import json
import os
import sys

closed = []
made = []
TEXT = [("Content-Type", "text/plain")]


class Lines:
    """An iterable of its own kind: counted when it is closed."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self.pieces)
        if isinstance(piece, Exception):
            raise piece
        made.append(piece)
        return piece

    def close(self):
        closed.append("Lines")


def environ_(environ, start):
    start("200 OK", TEXT)
    return [json.dumps({key: repr(value) for key, value in environ.items()}).encode()]


def read(environ, start):
    stream = environ["wsgi.input"]
    how = environ["QUERY_STRING"]
    result = {
        "all": lambda: stream.read(),
        "some": lambda: [stream.read(3), stream.read(3), stream.read(0)],
        "line": lambda: [stream.readline(), stream.readline(2), stream.readline()],
        "lines": lambda: stream.readlines(),
        "hint": lambda: stream.readlines(1),
        "iterate": lambda: list(stream),
        "after": lambda: [stream.read(), stream.read(), stream.readline(), list(stream)],
        "nothing": lambda: None,
        "close": lambda: stream.close(),
        "length": lambda: len(stream.read()),
        "sum": lambda: __import__("hashlib").sha256(stream.read()).hexdigest(),
    }[how]()
    start("200 OK", TEXT)
    return [repr(result).encode()]


def write(environ, start):
    write = start("200 OK", TEXT)
    write(b"a")
    write(b"")
    write(b"b")
    return [b"c"]


def write_only(environ, start):
    start("200 OK", TEXT)(b"x" * 600_000)
    return []


def twice(environ, start):
    start("200 OK", TEXT)
    start("201 Created", TEXT)
    return [b""]


def replaced(environ, start):
    start("200 OK", [("X-Old", "1")])
    try:
        raise ValueError("x")
    except ValueError:
        start("500 Oops", TEXT, sys.exc_info())
    return [b"handled"]


def too_late(environ, start):
    start("200 OK", TEXT)
    yield b"begun"
    try:
        raise ValueError("after the first byte")
    except ValueError:
        start("500 Oops", TEXT, sys.exc_info())
    yield b"never"


def lazy(environ, start):
    start("200 OK", TEXT)
    return Lines([b"one", b"", b"two", b"three"])


def breaks(environ, start):
    start("200 OK", TEXT)
    return Lines([b"one", ValueError("in the middle")])


def breaks_at_once(environ, start):
    start("200 OK", TEXT)
    return Lines([ValueError("at once")])


def late_start(environ, start):
    start("202 Accepted", TEXT)
    yield b"late"


def empty(environ, start):
    start("204 No Content", [])
    return Lines([])


def many(environ, start):
    start("200 OK", [*TEXT, ("Content-Length", "4"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [b"ab", b"cd"]


def large(environ, start):
    start("200 OK", TEXT)
    return [bytes(range(256)) * 4096]


def state(environ, start):
    start("200 OK", TEXT)
    return [json.dumps({"closed": closed, "made": [m.decode() for m in made]}).encode()]


def wrong(environ, start):
    """Each breaks one rule of PEP 3333."""
    how = environ["QUERY_STRING"]
    status = {"status_int": 200, "status_break": "200 OK\nX-Evil: 1", "status_none": "OK"}
    headers = {
        "header_int": [("X", 1)],
        "header_break": [("X", "a\r\nX-Evil: 1")],
        "header_lone_cr": [("X", "a\rb")],
        "name_break": [("X\nX-Evil", "1")],
        "name_space": [("X Y", "1")],
        "not_latin": [("X", "Ω")],
        "nul": [("X", "a\0b")],
        "interim": TEXT,
        "length": [("Content-Length", "-5")],
    }
    if how == "interim":
        start("100 Continue", TEXT)
    elif how != "no_start":
        start(status.get(how, "200 OK"), headers.get(how, TEXT))
    return {"body_str": ["text"], "body_none": None, "body_int": [1]}.get(how, [b"body"])


def iterator(environ, start):
    start("200 OK", iter([("X-A", "1")]))
    return [b""]


def latin(environ, start):
    start("200 OK", [("X-Name", "caf\xe9")])
    return [b""]


def prints(environ, start):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    environ["wsgi.errors"].write("to errors\n")
    environ["wsgi.errors"].flush()
    sys.stdout.write("no end")
    start("200 OK", TEXT)
    return [b""]


def shouts(environ, start):
    sys.stdout.write("x" * 99 + "\n" + "\n" * 300_000)
    start("200 OK", TEXT)
    return [b""]


def raises(environ, start):
    raise LookupError("no such thing\nsecond line")


def leaves(environ, start):
    sys.exit(4)


def reach(environ, start):
    """What of the host can be seen or changed."""
    found = {"environ": dict(os.environ)}
    for path in ("/app/x", "/site/x", "/isopod/x", "/usr/local/lib/x", "/x", "/app/../x",
                 "/tmp/../../etc/x", "/tmp/x"):  # fmt: skip
        try:
            with open(path, "w") as file:
                file.write("x")
            found[path] = "written"
        except OSError as error:
            found[path] = type(error).__name__
    for path in ("/etc/passwd", "/tmp/../../../../etc/passwd", "/proc/self/environ"):
        try:
            open(path).close()
            found[path] = "read"
        except OSError as error:
            found[path] = type(error).__name__
    try:
        os.symlink("/etc/passwd", "/tmp/link")
        open("/tmp/link").close()
        found["symlink"] = "read"
    except OSError as error:
        found["symlink"] = type(error).__name__
    start("200 OK", TEXT)
    return [json.dumps(found).encode()]


def app(environ, start):
    name = environ["PATH_INFO"].strip("/").partition("/")[0]
    return globals().get(name, environ_)(environ, start)
