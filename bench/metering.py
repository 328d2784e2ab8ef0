"""What metering costs: the CPU of a warm Flask request with the meter on against off, in one run.

A node deploys the app and takes its snapshot; then the gateway, the engine and the guest run in
this process, without the HTTP server, so that rounds with and without the meter can alternate on
the same instance. Off, nothing reads the thread's clock (not even the engine's slices), nothing is
recorded and nothing written; on, everything is, and the CPU of writing the spool is in its rounds,
also that of its thread. Without the server a request is cheaper than a real one, so the share is
too high rather than too low. Other processes only ever add to a round (they take the caches), so
the fastest fifth of the rounds of each kind is compared. What the control process spends on the
records afterwards is a figure of `ledger`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import sites
from bench.figures import Figure, Result
from tools.node import ROOT, start

ROUNDS = 40  # of each kind
REQUESTS = 400  # a round
TARGET_PERCENT = 3.0


def run(say: Callable[[str], None]) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="isopod-"))
    try:
        say("deploying")
        node = start(folder / "data", said=folder / "up.log", workers=1)
        try:
            node.wait_until_ready()
            node.cli("deploy", str(sites.HELLO), "--name", "hello")
        finally:
            node.stop()
        say(f"{2 * ROUNDS} rounds of {REQUESTS} requests")
        done = subprocess.run(
            [sys.executable, "-m", "bench.metering", str(folder / "data")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=600,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _result(json.loads(done.stdout))


def _result(rounds: dict[str, list[float]]) -> Result:
    base, on = _fastest(rounds["off"]), _fastest(rounds["on"])
    extra = on - base
    figures = [
        Figure("CPU of metering / CPU of a warm request", extra / base * 100, "%", TARGET_PERCENT),
        Figure("CPU of metering, per request", extra, "us"),
        Figure("CPU of a warm request without it (no HTTP server)", base, "us"),
    ]
    return Result(
        "metering",
        figures,
        dict(rounds),
        bars={"off": base, "on": on},
        bars_unit="CPU us per request",
    )


def _fastest(rounds: list[float]) -> float:
    return statistics.mean(sorted(rounds)[: max(1, len(rounds) // 5)])


# -- in a process of its own ------------------------------------------------------------------


async def _measure(data_dir: Path) -> dict[str, list[float]]:
    from isopod.blobs.images import ImageCache
    from isopod.blobs.store import BlobStore
    from isopod.blobs.trees import TreeCache
    from isopod.engine.config import EngineSettings, make_engine
    from isopod.engine.machine_code import CompiledHere
    from isopod.engine.scheduler import Scheduler
    from isopod.gateway.admission import Admission
    from isopod.gateway.app import Gateway
    from isopod.gateway.direct import DirectApps
    from isopod.gateway.fleet import Fleet
    from isopod.gateway.forward import Forwarder
    from isopod.gateway.lines import Lines
    from isopod.gateway.quota import Quotas
    from isopod.gateway.volumes import HeldVolumes
    from isopod.host.capabilities import no_world
    from isopod.metering.meter import Meter
    from isopod.metering.spool import Spool
    from isopod.routes import RouteTable
    from isopod.runtimes import known
    from isopod.runtimes.base import InWorker
    from isopod.runtimes.static.serving import StaticSites
    from isopod.server.guests import GuestMaker
    from isopod.server.runtimes import WorkerRuntimes
    from isopod.settings import NodeSettings

    settings = NodeSettings.load(data_dir=data_dir)
    tmp = settings.worker_tmp(0)
    tmp.mkdir(parents=True, exist_ok=True)
    blobs = BlobStore(settings.blobs_dir)
    trees = TreeCache(settings.trees_dir, blobs)
    engine = make_engine(EngineSettings())
    runtimes = WorkerRuntimes.load(
        known(),
        InWorker(
            engine=engine,
            cache_dir=settings.cache_dir,
            trees=trees,
            machine_code=CompiledHere(engine),
            precise_clocks=settings.precise_clocks,
        ),
    )
    routes = RouteTable(settings.routes_path)
    route = routes.get("hello")
    meter = Meter(Spool(settings.spool_path(0)))
    quotas = Quotas(folder=tmp / "quota", worker=0, workers=1, clock=time.time)
    async with Scheduler(engine) as scheduler:
        maker = GuestMaker(
            runtimes=runtimes.guests,
            scheduler=scheduler,
            trees=trees,
            images=ImageCache(settings.images_dir, blobs, limit_bytes=1 << 30),
            tmp_root=tmp,
            world=no_world(tmp),
            secrets=_no_secrets,
            volumes_dir=settings.volumes_dir,
        )
        fleet = Fleet(
            make=maker,
            logs_dir=settings.logs_dir,
            log_bytes=16 << 20,
            budget_bytes=1 << 32,
            max_instances=10,
            quotas=quotas,
            meter=meter.record,
            volumes=HeldVolumes(settings.volumes_dir, worker=0),
            held_bytes=lambda _: 0,
        )
        end, supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lines = Lines(end, told=lambda _body: None)
        gateway = Gateway(
            fleet=fleet,
            direct=DirectApps(runtimes.direct, files=StaticSites(trees)),
            admission=Admission(quotas=quotas, lag_s=lambda: 0.0, tell=lambda *_: None),
            find_route=lambda _name: route,
            elsewhere=lambda _route: None,
            forwarder=Forwarder(lines),
            domain="localhost",
            trusted_proxies=(),
            meter=meter.record,
        )
        await _round(gateway, 300)
        rounds: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(ROUNDS):
            with _unmetered(gateway):
                rounds["off"].append(await _round(gateway, REQUESTS))
            rounds["on"].append(await _round(gateway, REQUESTS))
        await fleet.close()
        await meter.close()
        maker.close()
        quotas.close()
        lines.close()
        supervisor.close()
    return rounds


async def _no_secrets(_route: Any) -> dict[str, str]:
    return {}


async def _round(gateway: Any, requests: int) -> float:
    """CPU microseconds of this process per request; written records are in it."""
    began = time.process_time_ns()
    for _ in range(requests):
        await _ask(gateway)
    await asyncio.sleep(0.5)  # longer than a batch waits
    return (time.process_time_ns() - began) / requests / 1e3


async def _ask(gateway: Any) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "headers": [
            (b"host", b"hello.localhost:8080"),
            (b"user-agent", b"bench/1.0 (a client of usual manners)"),
            (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
            (b"accept-encoding", b"gzip, deflate, br"),
            (b"accept-language", b"en-GB,en;q=0.7"),
            (b"connection", b"keep-alive"),
        ],
    }
    await gateway(scope, receive, send)
    assert sent[0]["status"] == 200 and sent[1]["body"] == b"Hello from Flask!\n", sent


class _NoSteps:
    spent_ns = 0

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def run(self) -> Any:
        return self._coroutine


class _NoUse:
    egress_bytes = 0

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def end(self) -> None:
        pass

    def record(self, **_: object) -> None:
        pass


@contextmanager
def _unmetered(gateway: Any) -> Iterator[None]:
    from isopod.engine import scheduler
    from isopod.gateway import app

    clocks = {name: getattr(time, name) for name in dir(time) if not name.startswith("_")}
    still = SimpleNamespace(**{**clocks, "thread_time_ns": lambda: 0})
    off = [
        (app, "Steps", _NoSteps),
        (app, "RequestUse", _NoUse),
        (app, "head_bytes", lambda *_: 0),
        (app, "_head_bytes_in", lambda _: 0),
        (gateway, "_meter", lambda _: None),
        (scheduler.Scheduler, "_account", lambda *_: 0),
        (scheduler, "time", still),
    ]
    on = [(owner, name, getattr(owner, name)) for owner, name, _ in off]
    for owner, name, value in off:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in on:
            setattr(owner, name, value)


def _main() -> None:
    import uvloop

    sys.setswitchinterval(0.0005)  # as in a worker
    print(json.dumps(uvloop.run(_measure(Path(sys.argv[1])))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _main()
