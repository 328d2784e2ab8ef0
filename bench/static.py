"""A static file of 10 KiB: CPU time, latency and throughput, beside nginx with as many workers.

Both serve the same file from the page cache over keep-alive connections, nginx with `sendfile`,
open files cached and no access log. The rounds alternate, so that a change of the machine's load
reaches both.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import native
from bench.figures import Figure, Result
from bench.warm import Series
from tools import processes
from tools.node import running

ROUNDS = 5
REQUESTS = 8000
SIZE = 10 << 10
PATH = "/data.bin"
_CONFIG = """
daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  open_file_cache max=100;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; root {folder}/site; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    port: int
    workers: list[int]


@contextlib.contextmanager
def nginx(folder: Path, workers: int) -> Iterator[Nginx]:
    """A running one that serves `folder`/site."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise RuntimeError("there is no nginx on this machine; `make setup-bench` installs it")
    port = native.free_port()
    config = folder / "nginx.conf"
    # Started by root, its workers would be another account that may not read the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(user + _CONFIG.format(folder=folder, port=port, workers=workers))
    process = subprocess.Popen(
        [found, "-e", str(folder / "start.log"), "-p", str(folder), "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        native.first_response(port, path=PATH, process=process)
        yield Nginx(port, [child.pid for child in processes.descendants(process.pid)])
    finally:
        native.stop(process)


def run(say: Callable[[str], None]) -> Result:
    """Figures of one run; ratios only between servers of the same run."""
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isopod-static-")))
        (folder / "site").mkdir()
        (folder / "site" / PATH[1:]).write_bytes(random.Random(1).randbytes(SIZE))
        (folder / "site" / "index.html").write_text("<p>hello")
        say("starting the servers")
        node = stack.enter_context(running())
        node.cli("deploy", str(folder / "site"), "--name", "site")
        peer = stack.enter_context(nginx(folder, cores))
        pids = [worker.pid for worker in node.workers()]
        series = {
            f"{name}, {connections}": Series(
                f"{name}, {connections}", port, hostname, who, connections, True, PATH
            )
            for connections in (1, 16)
            for name, port, hostname, who in (
                ("isopod", node.gateway_port, f"site.localhost:{node.gateway_port}", pids),
                ("nginx", peer.port, "localhost", peer.workers),
            )
        }
        say("warming up")
        for one in series.values():
            one.round(1000)
            one.forget()
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            for one in series.values():
                one.round(REQUESTS)
    return _result(series)


def _result(series: dict[str, Series]) -> Result:
    figures = [
        Figure(
            f"CPU per request / nginx's, {connections} connection{'s' * (connections > 1)}",
            series[f"isopod, {connections}"].cpu / series[f"nginx, {connections}"].cpu,
            "times",
            2.0,
        )
        for connections in (1, 16)
    ]
    for name, one in series.items():
        figures.append(Figure(f"CPU per request: {name}", one.cpu, "us"))
        figures.append(Figure(f"p50: {name}", one.percentile_ms(50), "ms"))
        figures.append(Figure(f"p99: {name}", one.percentile_ms(99), "ms"))
        figures.append(Figure(f"throughput: {name}", statistics.median(one.rate), "requests/s"))
    raw = {name: {"cpu_us": one.cpu_us, "requests_per_s": one.rate} for name, one in series.items()}
    return Result(
        "static",
        figures,
        raw,
        bars={name: one.cpu for name, one in series.items()},
        bars_unit="CPU us per request for 10 KiB (label: server, connections)",
    )
