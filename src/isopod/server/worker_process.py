"""`python -m isopod.server.worker_process`: one gateway process, started by the supervisor.

It is handed a listening socket, reads routes from routes.db, and is disposable: a crash loses its
requests in flight and nothing else. It imports neither the database layer nor the API. One that is
a tenant's own has no socket to listen on; the others hand its requests over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from isopod.blobs.store import BlobStore
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.scheduler import Scheduler
from isopod.engine.written import WrittenPages
from isopod.errors import IsopodError
from isopod.gateway.admin import AdminSocket
from isopod.gateway.admission import Admission
from isopod.gateway.app import Gateway
from isopod.gateway.commands import Commands
from isopod.gateway.connections import ConnectionWatch
from isopod.gateway.direct import DirectApps
from isopod.gateway.fleet import Fleet
from isopod.gateway.forward import Forwarder
from isopod.gateway.forwarded import ForwardedRequests
from isopod.gateway.jobs import JobRunner
from isopod.gateway.lag import LoopLag
from isopod.gateway.lines import Lines
from isopod.gateway.quota import Quotas, Today
from isopod.gateway.volumes import HeldVolumes
from isopod.gateway.websockets import WebSockets
from isopod.gateway.wires import Wires
from isopod.host.capabilities import World
from isopod.host.channel import BrokerClient
from isopod.host.reached import Noting, Reached
from isopod.host.tls import extra_trust, system_trust
from isopod.metering.meter import Meter
from isopod.metering.spool import Spool
from isopod.model.route import Route
from isopod.model.tenant import TenantName
from isopod.routes import RouteTable
from isopod.runtimes import known
from isopod.runtimes.base import InWorker
from isopod.runtimes.static import beside
from isopod.runtimes.static.serving import StaticSites
from isopod.sandbox.worker import Sandbox, shut_in
from isopod.server.children import EGRESS_FD, GATEWAY_FD, LINES_FD, READY_FD, TENANT
from isopod.server.coder import Coder, start_coder
from isopod.server.guests import GuestMaker
from isopod.server.handover import Handover
from isopod.server.http_server import BACKLOG, http_server
from isopod.server.maker import Maker, ReadImages, ReadTrees, start_maker
from isopod.server.module_making import ModuleMaking
from isopod.server.opener import Opener, start_opener
from isopod.server.room import max_instances, max_websockets
from isopod.server.runtimes import WorkerRuntimes
from isopod.server.watchdog import BEAT_S
from isopod.server.worker_folders import WorkerFolders
from isopod.server.worker_routes import WorkerRoutes
from isopod.settings import NodeSettings, child_value

_log = logging.getLogger("isopod.worker")
_POLL_ROUTES_S = 0.25
_LAST_RECORDS_S = 1.0
# How long a thread waits for the GIL before it insists. Guests run with the GIL held, for ticks of
# 2 ms, and between two slices it is free for a moment too short to take: with Python's 5 ms nobody
# ever insisted, and beside a guest that computes the HTTP server's threads got in four times a
# second (p50 140 ms, now 8).
_GIL_PATIENCE_S = 0.0005


class Worker:
    def __init__(
        self,
        settings: NodeSettings,
        index: int,
        *,
        admin: socket.socket,
        sandbox: Sandbox,
        files: Maker,
        secrets: Opener,
        coder: Coder,
        egress: socket.socket,
        lines: socket.socket,
        trust: str,
        extra: str,
        folders: WorkerFolders,
        tenant: TenantName | None,
        written: WrittenPages | None,
    ) -> None:
        """`egress`: this worker's channel to the broker of connections; `lines`: to other workers.
        `trust`: the certificates that the machine trusts; `extra`: what its operator adds.
        `tenant`: the one whose own worker this is, None for a shared one."""
        self.settings = settings
        self.index = index
        self.folders, self.tenant = folders, tenant
        self.written = written
        blobs = BlobStore(settings.blobs_dir)
        self.files, self.secrets, self.coder = files, secrets, coder
        self.trees = ReadTrees(folders.trees, blobs, maker=files)
        self.images = ReadImages(
            folders.images,
            blobs,
            limit_bytes=settings.image_cache_mib << 20,
            maker=files,
        )
        self.engine = make_engine(EngineSettings())
        coder.use(self.engine)
        self.runtimes = WorkerRuntimes.load(
            known(),
            InWorker(
                engine=self.engine,
                cache_dir=settings.cache_dir,
                trees=self.trees,
                machine_code=coder,
                precise_clocks=settings.precise_clocks,
            ),
        )
        self._preparing: set[asyncio.Task[None]] = set()
        self.reached = Reached()
        self.tmp_root = folders.tmp
        self.volumes = HeldVolumes(folders.volumes_root, worker=index)
        self.routes = WorkerRoutes(RouteTable(folders.routes), tenant=tenant, volumes=self.volumes)
        self.admin_listener = admin
        self.sandbox = sandbox
        self.egress, self.lines = egress, lines
        self.trust, self.extra = trust, extra
        self.quotas = Quotas(
            folder=folders.quota,
            # A tenant has one worker of its own at most: they share a row, each in its own file.
            worker=min(index, settings.workers),
            workers=settings.workers + 1,
            clock=time.time,
        )

    async def run(self, listener: int | None, ready: int) -> None:
        settings = self.settings
        meter = Meter(Spool(self.folders.spool))
        async with Scheduler(self.engine, written=self.written) as self.scheduler:
            scheduler = self.scheduler
            outside = BrokerClient(self.egress)
            world = World.make(
                Noting(outside, self.reached),
                trust=self.trust,
                extra=self.extra,
                key_folder=self.tmp_root,
            )
            maker = self.maker = GuestMaker(
                runtimes=self.runtimes.guests,
                world=world,
                scheduler=scheduler,
                trees=self.trees,
                images=self.images,
                tmp_root=self.tmp_root,
                secrets=self.secrets.secrets,
                volumes_dir=self.folders.volumes_root,
            )
            modules = ModuleMaking(self.runtimes.guests, self.trees)
            files = StaticSites(self.trees, beside=beside.FOLDER)
            self.direct = DirectApps(self.runtimes.direct, files=files)
            wires = Wires(port=settings.port, memory_bytes=self.quotas.memory_bytes)
            self.fleet = Fleet(
                make=maker,
                logs_dir=self.folders.logs,
                log_bytes=settings.log_mib << 20,
                budget_bytes=(settings.memory_budget_mib << 20) // settings.workers,
                max_instances=max_instances(),
                quotas=self.quotas,
                meter=meter.record,
                volumes=self.volumes,
                held_bytes=wires.held_bytes,
            )
            lag = self.lag = LoopLag()
            self.admission = Admission(
                quotas=self.quotas, lag_s=lambda: lag.seconds, tell=self._tell
            )
            self._follow_tenants()
            lines = Lines(self.lines, told=self._told)
            forwarder = Forwarder(lines)
            gateway = Gateway(
                fleet=self.fleet,
                direct=self.direct,
                admission=self.admission,
                find_route=self.routes.find,
                elsewhere=self.routes.elsewhere,
                forwarder=forwarder,
                domain=settings.domain,
                trusted_proxies=settings.trusted_proxies,
                meter=meter.record,
            )
            websockets = self.websockets = WebSockets(
                gateway=gateway,
                fleet=self.fleet,
                direct=self.direct,
                admission=self.admission,
                wires=wires,
                elsewhere=self.routes.elsewhere,
                forwarder=forwarder,
                meter=meter.record,
                most=max_websockets(),
            )
            forwarded = ForwardedRequests(websockets, answers=gateway.answers)
            lines.take_with(forwarded.take)
            jobs = JobRunner(
                serve=gateway,
                commands=Commands(fleet=self.fleet, admission=self.admission),
                make=maker.command,
                find_route=self.routes.table.get,
                elsewhere=self.routes.elsewhere,
                domain=settings.domain,
            )
            admin = AdminSocket(
                self.admin_listener,
                {
                    "status": self._status,
                    "refresh": self._refresh,
                    "sleep": self._sleep,
                    "reached": self._reached,
                    "forget_reached": self._forget_reached,
                    "usage_today": self._usage_today,
                    "failed_images": self._failed_images,
                    "make_module": modules.ask,
                },
                {"run": jobs.run},
            )
            await admin.open()
            self.connections = ConnectionWatch(
                port=settings.port,
                most=BACKLOG,
                trusted=settings.trusted_proxies,
                but=wires.clients,
            )
            background = [
                asyncio.create_task(self._follow_routes()),
                asyncio.create_task(self.connections.run()),
                asyncio.create_task(wires.run()),
                asyncio.create_task(websockets.run()),
            ]
            try:
                await self._serve(gateway, websockets, listener, ready)
            finally:
                for task in background:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                await admin.close()
                await forwarded.close()
                lines.close()
                await self.fleet.close()
                # What was cut just now was served, and is billed.
                await self._drain(gateway, websockets, _LAST_RECORDS_S)
                await meter.close()
                maker.close()
                modules.close()
                world.close()
                outside.close()
                lag.close()
                self.quotas.close()

    async def _serve(
        self, gateway: Gateway, websockets: WebSockets, listener: int | None, ready: int
    ) -> None:
        """A tenant's own worker has no listener: other workers hand its requests over."""
        server = http_server(websockets, listener) if listener is not None else None
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        serving = asyncio.create_task(server.serve() if server else stop.wait())
        await asyncio.sleep(0)
        os.write(ready, b"ready\n")
        self._beat(ready)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if server is None:
            websockets.close()
            await self._drain(gateway, websockets, self.settings.drain_s)
        elif not serving.done():
            server.stop()
            websockets.close()
            await self._drain(gateway, websockets, self.settings.drain_s)
        gateway.draining = True
        await asyncio.wait({serving}, timeout=2)
        if serving.done():
            serving.result()  # a server that failed must not look like one that was stopped

    def _beat(self, ready: int) -> None:
        """Tell the supervisor that the loop turns (see server.watchdog)."""
        if self.files.is_gone() or self.secrets.is_gone() or self.coder.is_gone():
            _log.error("a process beside this worker has ended: so does this worker")
            os.kill(os.getpid(), signal.SIGTERM)
        with contextlib.suppress(OSError):  # it does not read just now, or died
            os.write(ready, b".")
        asyncio.get_running_loop().call_later(BEAT_S, self._beat, ready)

    async def _drain(self, gateway: Gateway, websockets: WebSockets, within_s: float) -> None:
        """Until no request is in flight, `within_s` at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while (gateway.in_flight or len(websockets)) and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # -- routes and admin -------------------------------------------------------------------

    async def _follow_routes(self) -> None:
        while True:
            await asyncio.sleep(_POLL_ROUTES_S)
            try:
                if self.routes.table.changed():
                    self._apply_routes()
            except Exception:
                _log.exception("cannot read the routes; serving with the ones known")

    def _told(self, body: dict[str, Any]) -> None:
        """By the supervisor: how many workers there are, of which each has its part."""
        budget = self.settings.memory_budget_mib << 20
        self.fleet.set_budget(budget // max(1, int(body["processes"])))

    def _follow_tenants(self) -> None:
        try:
            self.quotas.follow(self.routes.read_tenants())
        except (IsopodError, OSError):
            # A damaged row must not keep the apps from being served.
            _log.exception("cannot read the tenants' quotas; keeping the ones known")

    def _tell(self, route: Route, line: str) -> None:
        """In the app's log: what its visitors are told is less."""
        self.fleet.log(route).write("isopod", line, version=route.version, level="warning")

    def _apply_routes(self) -> None:
        self._follow_tenants()
        self.routes.forget()
        self.fleet.forget({name: self.routes.mine(name) for name in self.fleet.names})
        self.direct.forget(self.routes.find)
        self.maker.keep_images(self.fleet.images())

    def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        fleet = self.fleet.status()
        return {
            "pid": os.getpid(),
            "worker": self.index,
            "tenant": self.tenant or "",
            "rss_bytes": _rss_bytes(),
            "lag_ms": round(self.lag.take_worst() * 1e3, 1),
            "in_flight": self.admission.in_flight,
            "websockets": self.websockets.status,
            "refused": self.admission.refused,
            "connections_closed": self.connections.closed,
            "sandbox": self.sandbox.to_json(),
            # Since the start: see docs/metering.md.
            "guest_cpu_ns": self.scheduler.guest_ns,
            **fleet,
            "apps": self.direct.status(fleet["apps"]),
        }

    def _refresh(self, request: dict[str, Any]) -> dict[str, Any]:
        self.routes.table.changed()
        self._apply_routes()
        route = self.routes.mine(str(request.get("app", "")))
        if route is not None:
            self._make_ready(route)
        return {"revision": self.routes.table.revision()}

    def _make_ready(self, route: Route) -> None:
        if self.direct.of(route) is None:
            self.maker.make_ready(route)

        async def ready() -> None:
            with contextlib.suppress(IsopodError):  # its first request tells
                await self.direct.make_ready(route)

        task = asyncio.get_running_loop().create_task(ready())
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    def _failed_images(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"images": self.maker.take_failed_images()}

    def _usage_today(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"day": days since the epoch, "tenants": {name: [cpu_ns, egress_bytes]}}"""
        day = int(request.get("day", 0))
        used = {
            str(name): Today(day, int(cpu_ns), int(egress))
            for name, (cpu_ns, egress) in dict(request.get("tenants", {})).items()
        }
        self.quotas.ledger_says(used)
        return {}

    def _reached(self, request: dict[str, Any]) -> dict[str, Any]:
        seen = self.reached.seen(str(request.get("app", "")))
        return {"connected": list(seen.connected), "refused": seen.refused}

    def _forget_reached(self, request: dict[str, Any]) -> dict[str, Any]:
        self.reached.forget(str(request.get("app", "")))
        return {}

    def _sleep(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ended": self.fleet.sleep(str(request.get("app", "")))}


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _extra_trust(settings: NodeSettings) -> str:
    """As it was at the start of the node, or nothing: then apps' connections fail, and say why."""
    try:
        return extra_trust(settings.extra_ca)
    except ValueError as bad:
        _log.error("extra_ca %s %s: serving without it", settings.extra_ca, bad)
        return ""


def main(*, kill_unlisted: bool = False) -> None:
    """`kill_unlisted`: for tests (see `sandbox.seccomp.guard_guests`)."""
    sys.setswitchinterval(_GIL_PATIENCE_S)
    logging.basicConfig(level=logging.INFO, format="worker: %(message)s")
    # An instance holds about ten descriptors, and each connection one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    handed = Handover.take()
    ready = int(child_value(READY_FD))
    listener = int(given) if (given := child_value(GATEWAY_FD)) else None
    os.set_blocking(ready, False)
    settings, index = handed.settings, int(child_value("ISOPOD_WORKER_INDEX"))
    tenant = TenantName.parse(name) if (name := child_value(TENANT)) else None
    folders = WorkerFolders.of(settings, index, tenant)
    needs = folders.prepare(settings)
    tempfile.tempdir = str(folders.tmp)
    egress = socket.socket(fileno=int(child_value(EGRESS_FD)))
    lines = socket.socket(fileno=int(child_value(LINES_FD)))
    trust, extra = system_trust(), _extra_trust(settings)
    admin = AdminSocket.bind(settings.admin_path(index))
    others = [ready, admin.fileno(), egress.fileno(), lines.fileno()]
    if listener is not None:
        others.append(listener)
    files = start_maker(settings, handed.features, folders=folders, others=others)
    others.append(files.fileno())
    coder = start_coder(
        settings,
        handed.features,
        trees=folders.trees,
        folder=folders.machine_code,
        alone=tenant is not None,
        others=others,
    )
    secrets = start_opener(settings, handed.features, others=(*others, coder.fileno()))
    written = WrittenPages.open()
    sandbox = shut_in(needs, features=handed.features)
    worker = Worker(
        settings,
        index,
        admin=admin,
        sandbox=sandbox,
        files=files,
        secrets=secrets,
        coder=coder,
        egress=egress,
        lines=lines,
        trust=trust,
        extra=extra,
        folders=folders,
        tenant=tenant,
        written=written,
    )
    sandbox.guard(shown_code=True, kill_unlisted=kill_unlisted)
    uvloop.run(worker.run(listener, ready))


if __name__ == "__main__":
    main()
