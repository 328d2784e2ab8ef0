"""What a query of pg8000 takes in a guest, beside the same app under gunicorn, same server.

Timed within the app, around some queries on an open connection; the rounds of both alternate, and
the quietest one of each counts: a query waits for another process, so a busy machine adds to both
what is neither's. A request with one query, as a browser would see it, is measured apart.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import many, native
from bench.exchange import right
from bench.figures import Figure, Result
from tools import databases, processes
from tools.node import ROOT

APP = ROOT / "bench" / "apps" / "postgres"
ROUNDS = 25
KINDS = {"one": 80, "hundred": 15, "insert": 80, "one-tls": 80}  # queries a round
WORDS = {
    "one": "one row by its key",
    "hundred": "a hundred rows",
    "insert": "an insert, committed",
    "one-tls": "one row by its key, TLS",
}
REQUESTS = 30


@dataclass(slots=True)
class Peer:
    port: int
    hostname: str
    pids: list[int]
    us: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    request_ms: list[float] = field(default_factory=list)

    def round(self) -> None:
        for kind, count in KINDS.items():
            before = processes.cpu_s(self.pids)
            took = float(right(self.port, self.hostname, f"/{kind}/{count}").body)
            self.cpu_s[kind] += processes.cpu_s(self.pids) - before
            self.us[kind].append(took / count * 1e6)
        for _ in range(REQUESTS):
            self.request_ms.append(right(self.port, self.hostname, "/one/1").ms)

    def query_us(self, kind: str) -> float:
        return min(self.us[kind])

    def cpu_us(self, kind: str) -> float:
        return self.cpu_s[kind] / (KINDS[kind] * ROUNDS) * 1e6

    def median_us(self, kind: str) -> float:
        return statistics.median(self.us[kind])


def run(say: Callable[[str], None]) -> Result:
    with ExitStack() as stack:
        say("starting PostgreSQL, a node and gunicorn")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isopod-bench-")))
        certificate = _certificate(folder)
        server = stack.enter_context(databases.postgres(certificate=certificate))
        env = {
            "DATABASE_PORT": str(server.port),
            "PASSWORD": databases.PASSWORD,
            "CA": (folder / "only.pem").read_text(),
        }
        target = f"localhost:{server.port}"
        home = stack.enter_context(many.home())
        app = home / "app"
        app.mkdir()
        for file in APP.iterdir():
            if file.is_file():
                (app / file.name).write_bytes(file.read_bytes())
        (app / "isopod.toml").write_text(f'[network]\nallow = ["{target}"]\n')
        node = stack.enter_context(
            many.up(home, workers=1, port=0, control_port=0, egress_private=target)
        )
        settings = [word for pair in env.items() for word in ("--env", "=".join(pair))]
        node.cli("deploy", str(app), "--name", "postgres", *settings)
        port = native.free_port()
        words = ["env", *map("=".join, env.items()), *native.command(port)]
        process = native.launch(words, APP)
        stack.callback(native.stop, process)
        native.first_response(port, process=process)
        workers = [worker.pid for worker in node.workers()]
        children = [child.pid for child in processes.descendants(process.pid)]
        peers = [
            Peer(node.gateway_port, "postgres.localhost", workers),
            Peer(port, "localhost", children),
        ]
        right(port, "localhost", "/prepare/")
        for number in range(1, ROUNDS + 1):
            if number % 5 == 0:
                say(f"round {number} of {ROUNDS}")
            for peer in peers:
                peer.round()
    return _result(*peers)


def _certificate(folder: Path) -> Path:
    """Key and certificate of a server that vouches for itself; the latter also by itself."""
    key, only = folder / "key.pem", folder / "only.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(only)),
        ],
        stderr=subprocess.DEVNULL,
        check=True,
    )
    both = folder / "both.pem"
    both.write_text(key.read_text() + only.read_text())
    return both


def _result(ours: Peer, theirs: Peer) -> Result:
    figures = []
    for kind, words in WORDS.items():
        mine, other = ours.query_us(kind), theirs.query_us(kind)
        note = (
            f"{mine:,.0f} and {other:,.0f} us; medians {ours.median_us(kind):,.0f} and "
            f"{theirs.median_us(kind):,.0f}"
        )
        figures.append(Figure(f"pg8000, {words}: guest / native", mine / other, "times", 3.0, note))
    for kind, words in WORDS.items():
        mine, other = ours.cpu_us(kind), theirs.cpu_us(kind)
        note = f"{mine:,.0f} and {other:,.0f} us of the server's process"
        figures.append(Figure(f"CPU, {words}: guest / native", mine / other, "times", note=note))
    for name, peer in (("isopod", ours), ("gunicorn", theirs)):
        p50 = statistics.median(peer.request_ms)
        figures.append(Figure(f"a request with one query, p50: {name}", p50, "ms"))
    return Result(
        "postgres",
        figures,
        raw={"guest_us": ours.us, "native_us": theirs.us, "cores": os.cpu_count()},
        bars={
            f"{words}: {name}": peer.query_us(kind)
            for kind, words in WORDS.items()
            for name, peer in (("guest", ours), ("native", theirs))
        },
        bars_unit="us per query, quietest round",
    )
