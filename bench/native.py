"""The native peer: gunicorn's sync worker running the same apps on this Python."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import sites
from bench.exchange import Exchange, ask
from tools import processes

APP = sites.HELLO


@dataclass(frozen=True, slots=True)
class Gunicorn:
    """A running one. `workers` are the pids of its worker processes, `master` that of theirs."""

    port: int
    workers: list[int]
    master: int


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(port: int, workers: int = 1, entrypoint: str = "app:app") -> list[str]:
    """How gunicorn is started, everywhere it is."""
    return [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "sync", "--no-control-socket"),
        *("--workers", str(workers), "--bind", f"127.0.0.1:{port}", entrypoint),
    ]


def start(
    port: int, workers: int, *, app: Path = APP, entrypoint: str = "app:app"
) -> subprocess.Popen[bytes]:
    """Starts it; its log goes nowhere."""
    return launch(command(port, workers, entrypoint), app)


def launch(
    words: list[str],
    folder: Path,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A server of which only its answers matter, and perhaps what it complains of."""
    with (errors or Path(os.devnull)).open("wb") as complaints:
        return subprocess.Popen(
            words,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )


def first_response(
    port: int,
    limit_s: float = 30,
    *,
    path: str = "/",
    process: subprocess.Popen[bytes] | None = None,
) -> Exchange:
    """Returns as soon as the server has answered a request; asks every half millisecond."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            answer = ask(port, "localhost", path, timeout_s=limit_s)
        except OSError:
            if process is not None and process.poll() is not None:
                raise RuntimeError("the peer ended before it answered") from None
            time.sleep(0.0005)
            continue
        if answer.status != 200:
            raise RuntimeError(f"the peer answered {answer.status}: {answer.body[:300]!r}")
        return answer
    raise RuntimeError(f"the peer did not answer within {limit_s} s")


@contextlib.contextmanager
def running(workers: int) -> Iterator[Gunicorn]:
    """A started gunicorn whose workers are all up, ended at the end."""
    port = free_port()
    process = start(port, workers)
    try:
        first_response(port, process=process)
        end = time.monotonic() + 30
        while len(pids := [child.pid for child in processes.descendants(process.pid)]) < workers:
            if time.monotonic() > end:
                raise RuntimeError(f"gunicorn has not started its {workers} workers")
            time.sleep(0.01)
        yield Gunicorn(port, pids, process.pid)
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
