"""A WSGI server in one function: PEP 3333 over the request protocol."""

import io
import sys
from urllib.parse import unquote_to_bytes

import isopod_frames as frames
from isopod_frames import call, environ_key, response
from isopod_streams import flush, request_body


class _Empty(io.BufferedReader):
    """The body of every request without one: an app may close its input, the next one reads it."""

    def close(self):
        pass


_EMPTY = _Empty(io.BytesIO())


def environ_of(frame):
    """The environ for a request frame: latin-1 lines, nine of them fixed, then headers."""
    lines = frame.decode("latin-1").split("\n")
    method, path, query, protocol, scheme, host, port, client, has_body = lines[:9]
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": protocol,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "REMOTE_ADDR": client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": request_body() if has_body else _EMPTY,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for line in lines[9:]:
        name, _, value = line.partition(":")
        key = environ_key(name)
        if key in environ:
            # RFC 9110 5.3; cookies are joined as RFC 6265 wants them.
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    return environ


class ClientGone(Exception):
    """Nobody reads the response any more: the app's iterable is closed, no more is asked of it."""


class _Response:
    """What `start_response` and `write` collect until the first byte makes the head final."""

    def __init__(self):
        self.status = None
        self.headers = None
        self.sent = False

    def start(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response was called twice without exc_info")
        if not isinstance(status, str):
            raise TypeError(f"the status must be a str, not {type(status).__name__}")
        if "\n" in status or "\r" in status:
            raise ValueError("the status holds a line break")
        headers = list(headers)
        for name, value in headers:
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"header {name!r}: name and value must be str")
            if "\n" in value or "\r" in value or "\n" in name or "\r" in name:
                raise ValueError(f"header {name!r} holds a line break")
        self.status, self.headers = status, headers
        return self.write

    def head(self, op, body):
        if self.status is None:
            raise AssertionError("the app sent a body before it called start_response")
        self.sent = True
        return response(op, self.status, self.headers, body)

    def write(self, data):
        """A piece of the body reaches the client before this returns."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be bytes, not {type(data).__name__}")
        if not data:
            return
        for part in frames.chunks(data):
            if call(b"D" + part if self.sent else self.head(b"H", part)):
                raise ClientGone


def handle(app, environ):
    """Run one request; the frame that ends it."""
    answer = _Response()
    body = app(environ, answer.start)
    try:
        # One whole piece, which is what most apps give: head, body and end in one call.
        if type(body) is list and len(body) == 1 and not answer.sent:
            only = body[0]
            if type(only) is bytes and len(only) <= frames.CHUNK:
                return answer.head(b"S", only)
        for data in body:
            answer.write(data)
        return b"E" if answer.sent else answer.head(b"S", b"")
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


_app = None


def boot(app):
    global _app
    _app = app


def start():
    """A WSGI app is not told that it starts."""


def stop():
    """Nor that it ends."""


def serve():
    """Until the host sends an empty frame."""
    app = _app
    frame = call(b"Q")
    while frame:
        try:
            ended = handle(app, environ_of(frame))
        except ClientGone:
            ended = b"E"
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            kind, summary, text = frames.failure(error)
            del error
            frames.log(b"e", text.encode("utf-8", "backslashreplace"))
            ended = b"X" + f"{kind}\n{summary}".encode("utf-8", "backslashreplace")
        flush()
        frame = call(ended)
