"""`python -m isopod.server.worker_process`: one gateway process, started by the supervisor.

It is handed a listening socket, reads routes from routes.db, and is disposable: a crash loses its
requests in flight and nothing else. It imports neither the database layer nor the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop
from granian._granian import SocketHolder
from granian.constants import Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.engine.scheduler import Scheduler
from isopod.gateway.admin import AdminSocket
from isopod.gateway.app import Gateway
from isopod.gateway.fleet import Fleet
from isopod.model.route import Route
from isopod.routes import RouteTable
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.server.guests import GuestMaker
from isopod.settings import NodeSettings, child_value

_log = logging.getLogger("isopod.worker")
_POLL_ROUTES_S = 0.25
_MAX_KNOWN_ROUTES = 4096  # unknown names are kept too, and come from strangers
_MAX_HEADER_BYTES = 64 << 10
_HEADER_TIMEOUT_MS = 15_000
BACKLOG = 4096
# How long a thread waits for the GIL before it insists. Guests run with the GIL held, for ticks of
# 2 ms, and between two slices it is free for a moment too short to take: with Python's 5 ms nobody
# ever insisted, and beside a guest that computes the HTTP server's threads got in four times a
# second (p50 140 ms, now 8).
_GIL_PATIENCE_S = 0.0005


class Worker:
    def __init__(self, settings: NodeSettings, index: int) -> None:
        self.settings = settings
        self.index = index
        self.routes = RouteTable(settings.routes_path)
        self._known_routes: dict[str, Route | None] = {}  # until the table changes
        blobs = BlobStore(settings.blobs_dir)
        self.trees = TreeCache(settings.trees_dir, blobs)
        self.images = ImageCache(
            settings.images_dir, blobs, limit_bytes=settings.image_cache_mib << 20
        )
        self.runtime = PythonRuntime(settings.cache_dir)
        self.tmp_root = settings.run_dir / "tmp" / f"worker-{index}"

    async def run(self, listener: int, ready: int) -> None:
        settings = self.settings
        shutil.rmtree(self.tmp_root, ignore_errors=True)  # a killed predecessor's
        self.tmp_root.mkdir(parents=True, mode=0o700)
        async with Scheduler(self.runtime.linkage.engine) as scheduler:
            maker = self.maker = GuestMaker(
                runtime=self.runtime,
                scheduler=scheduler,
                trees=self.trees,
                images=self.images,
                tmp_root=self.tmp_root,
            )
            self.fleet = Fleet(
                make=maker,
                logs_dir=settings.logs_dir,
                budget_bytes=(settings.memory_budget_mib << 20) // settings.workers,
                max_instances=_max_instances(),
            )
            gateway = Gateway(
                fleet=self.fleet,
                find_route=self._find_route,
                domain=settings.domain,
                trusted_proxies=settings.trusted_proxies,
            )
            admin = AdminSocket(
                settings.run_dir / f"worker-{self.index}.sock",
                {
                    "status": self._status,
                    "refresh": self._refresh,
                    "sleep": self._sleep,
                    "failed_images": self._failed_images,
                },
            )
            await admin.open()
            follower = asyncio.create_task(self._follow_routes())
            try:
                await self._serve(gateway, listener, ready)
            finally:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await follower
                await admin.close()
                await self.fleet.close()
                maker.close()
                shutil.rmtree(self.tmp_root, ignore_errors=True)

    async def _serve(self, gateway: Gateway, listener: int, ready: int) -> None:
        server = _server(gateway, listener)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        serving = asyncio.create_task(server.serve())
        await asyncio.sleep(0)
        os.write(ready, b"ready\n")
        os.close(ready)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not serving.done():
            server.stop()
            await self._drain(gateway)
        gateway.draining = True
        await asyncio.wait({serving}, timeout=2)
        if serving.done():
            serving.result()  # a server that failed must not look like one that was stopped

    async def _drain(self, gateway: Gateway) -> None:
        """Until no request is in flight, `drain_s` at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.drain_s
        while gateway.in_flight and loop.time() < end:  # noqa: ASYNC110  a poll is enough here
            await asyncio.sleep(0.02)

    # -- routes and admin -------------------------------------------------------------------

    async def _follow_routes(self) -> None:
        while True:
            await asyncio.sleep(_POLL_ROUTES_S)
            try:
                if self.routes.changed():
                    self._apply_routes()
            except Exception:
                _log.exception("cannot read the routes; serving with the ones known")

    def _find_route(self, name: str) -> Route | None:
        """Without a look at the database for every request: `_follow_routes` and `refresh` see
        changes, and forget what is known here."""
        try:
            return self._known_routes[name]
        except KeyError:
            route = self.routes.get(name)
            if len(self._known_routes) >= _MAX_KNOWN_ROUTES:
                self._known_routes.clear()
            self._known_routes[name] = route
            return route

    def _apply_routes(self) -> None:
        self._known_routes.clear()
        self.fleet.forget({name: self.routes.get(name) for name in self.fleet.names})
        self.maker.keep_images(self.fleet.images())

    def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "worker": self.index,
            "rss_bytes": _rss_bytes(),
            **self.fleet.status(),
        }

    def _refresh(self, request: dict[str, Any]) -> dict[str, Any]:
        self.routes.changed()
        self._apply_routes()
        route = self._find_route(str(request.get("app", "")))
        if route is not None:
            self.maker.make_ready(route)
        return {"revision": self.routes.revision()}

    def _failed_images(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"images": self.maker.take_failed_images()}

    def _sleep(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ended": self.fleet.sleep(str(request.get("app", "")))}


def _server(gateway: Gateway, listener: int) -> Any:
    server: Any = Server(
        gateway,
        interface=Interfaces.ASGI,
        websockets=False,  # an upgrade reaches the gateway as a request, and is refused there
        log_enabled=False,
        backlog=BACKLOG,
        backpressure=BACKLOG,
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=_MAX_HEADER_BYTES
        ),
        http2_settings=HTTP2Settings(
            max_headers_size=_MAX_HEADER_BYTES, keep_alive_interval=30_000, keep_alive_timeout=20
        ),
    )

    # granian would bind a socket of its own per process; ours is shared, so that the connections
    # waiting in it survive this process.
    def use_listener() -> None:
        server._ssp = None
        holder: Any = SocketHolder  # its stub lacks the constructor
        server._shd = holder(listener, False, BACKLOG)

    server._init_shared_socket = use_listener
    return server


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _max_instances() -> int:
    """How many instances the limit of open files allows, with a part of it for connections. An
    instance has nine: its folders, its output, its app's log."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (files - min(2048, files // 4)) // 10)


def main() -> None:
    sys.setswitchinterval(_GIL_PATIENCE_S)
    logging.basicConfig(level=logging.INFO, format="worker: %(message)s")
    # An instance holds about ten descriptors, and each connection one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    worker = Worker(NodeSettings.of_child(), int(child_value("ISOPOD_WORKER_INDEX")))
    uvloop.run(
        worker.run(int(child_value("ISOPOD_GATEWAY_FD")), int(child_value("ISOPOD_READY_FD")))
    )


if __name__ == "__main__":
    main()
