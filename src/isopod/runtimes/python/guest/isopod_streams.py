"""stdout, stderr and the request body as Python file objects over host calls."""

import contextlib
import io
import sys

from isopod_frames import CHUNK, call, log

_speaking = None  # gives the number of the exchange that now runs, where there are many


def speaks_for(function):
    global _speaking
    _speaking = function


def log_of(number, stream, data):
    """One piece of output of an exchange; stream is b"O" or b"E"."""
    log(stream + number.to_bytes(4, "little"), data)


class _Output(io.RawIOBase):
    def __init__(self, stream):
        self._stream = stream

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data)
        if not data:
            return 0
        if _speaking is None:
            log(self._stream, data)
        else:
            log_of(_speaking(), self._stream.upper(), data)
        return len(data)


class Body(io.RawIOBase):
    """The request body as it arrives: each read is one host call, which waits for the client."""

    def __init__(self):
        self._ended = False

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._ended or not buffer:
            return 0
        data = call(b"B" + min(len(buffer), CHUNK).to_bytes(4, "little"))
        if not data:
            self._ended = True
        buffer[: len(data)] = data
        return len(data)


def text_output(stream):
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def install():
    """Before the app is imported: what it prints goes to its log."""
    sys.stdout = sys.__stdout__ = text_output(b"o")
    sys.stderr = sys.__stderr__ = text_output(b"e")


def flush():
    """At the end of a request, so that a line without its newline is in the log too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed or replaced
            stream.flush()


def request_body():
    return io.BufferedReader(Body(), CHUNK)
