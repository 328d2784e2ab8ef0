"""The native peer: gunicorn's sync worker running the same Flask app."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tools import processes
from tools.node import ROOT

APP = ROOT / "examples" / "flask-hello"


@dataclass(frozen=True, slots=True)
class Gunicorn:
    """A running one. `workers` are the pids of its worker processes."""

    port: int
    workers: list[int]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, workers: int) -> subprocess.Popen[bytes]:
    """Starts it; its log goes nowhere."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "sync"),
            *("--workers", str(workers), "--bind", f"127.0.0.1:{port}", "app:app"),
        ],
        cwd=APP,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def first_response(port: int, limit_s: float = 30) -> None:
    """Returns as soon as the server has answered a request."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except ConnectionError:
            time.sleep(0.001)
        finally:
            connection.close()
    raise RuntimeError(f"gunicorn did not answer within {limit_s} s")


@contextlib.contextmanager
def running(workers: int) -> Iterator[Gunicorn]:
    """A started gunicorn whose workers are all up, ended at the end."""
    port = free_port()
    process = start(port, workers)
    try:
        first_response(port)
        end = time.monotonic() + 30
        while len(pids := [child.pid for child in processes.descendants(process.pid)]) < workers:
            if time.monotonic() > end:
                raise RuntimeError(f"gunicorn has not started its {workers} workers")
            time.sleep(0.01)
        yield Gunicorn(port, pids)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends it and waits for it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
