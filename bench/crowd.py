"""Many apps asked over connections that stay open, by a process of its own.

Started by `Crowd`; orders come as JSON lines on standard input, results go back the same way. It
holds one connection to each app, so that an app's requests reach the worker that has it.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from bench.load import Client, Job, Load
from tools.node import ROOT


class Crowd:
    """The handle on that process. Made by `crowd`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(
        self, hostnames: Iterable[str], *, requests: int = 1, at_once: int = 32, path: str = "/"
    ) -> Load:
        """Each name `requests` times, one after the other; `at_once` of the names at a time.
        The connections of all of them are opened before the first request is sent."""
        order = {
            "hostnames": list(hostnames),
            "requests": requests,
            "at_once": at_once,
            "path": path,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        return Load(**json.loads(line))


@contextmanager
def crowd(port: int) -> Iterator[Crowd]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.crowd", str(port)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Crowd(process)
    finally:
        process.kill()
        process.communicate()


def _serve(port: int) -> None:
    clients: dict[str, Client] = {}
    for line in sys.stdin:
        print(json.dumps(asdict(_obey(port, json.loads(line), clients))), flush=True)


def _obey(port: int, order: dict[str, object], clients: dict[str, Client]) -> Load:
    hostnames, requests = order["hostnames"], order["requests"]
    at_once, path = order["at_once"], order["path"]
    assert isinstance(hostnames, list) and isinstance(requests, int) and isinstance(at_once, int)
    selector = selectors.DefaultSelector()
    waiting: list[Client] = []
    began = time.perf_counter()
    times: Counter[str] = Counter()
    for hostname in hostnames:
        times[hostname] += 1  # the same name may be asked by many at once
        name = f"{hostname} {times[hostname]}"
        client = clients.setdefault(name, Client(Job(port, hostname, requests, path=str(path))))
        client.asked = 0
        client.connect()
        waiting.append(client)
    waiting.reverse()
    latencies: list[float] = []
    errors: dict[str, int] = {}

    def next_one() -> None:
        if waiting:
            new = waiting.pop()
            new.asked += 1
            new.send(selector)

    for _ in range(min(at_once, len(waiting))):
        next_one()
    while selector.get_map():
        ready = selector.select(timeout=60)
        if not ready:
            errors["no answer in 60 s"] = len(selector.get_map())
            break
        for key, _ in ready:
            one: Client = key.data
            verdict = one.read()
            if verdict is None:
                continue
            if verdict:
                errors[verdict] = errors.get(verdict, 0) + 1
            else:
                latencies.append((time.perf_counter() - one.began) * 1000)
            if verdict or one.server_closes:
                one.hang_up(selector)
            elif one.socket is not None:
                selector.unregister(one.socket)
            if one.asked < requests:
                one.asked += 1
                one.send(selector)
            else:
                next_one()
    return Load(time.perf_counter() - began, latencies, errors)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
