"""`python -m isopod.server.egress_process`: looks names up and connects, for all workers.

Workers can make no socket. They ask here, over a pair of sockets each (see `host.channel`), and are
handed connected ones. This process decides by itself what an app may (routes.db says), holds no
tenant's data, and is disposable: a new one takes over its pairs, and is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from isopod.errors import IsopodError
from isopod.host.broker import AppGrant, Broker
from isopod.host.channel import BrokerServer
from isopod.host.egress import PrivateGrant
from isopod.host.outside import OutsideError
from isopod.model.network import EgressPolicy
from isopod.routes import RouteTable
from isopod.sandbox import egress
from isopod.server.children import CHANNELS_FD, READY_FD, tell_ready
from isopod.server.egress_channels import TakenChannels
from isopod.server.handover import Handover
from isopod.settings import child_value

_log = logging.getLogger("isopod.egress")
_LOOK_S = 2.0


class Grants:
    """What each app may, of the routes."""

    def __init__(self, path: Path) -> None:
        self._routes = RouteTable(path)
        self._bounds: dict[str, EgressPolicy] | None = None  # of tenants that have one

    def __call__(self, app: str) -> AppGrant | None:
        try:
            if self._routes.changed():  # also when the file was rebuilt
                self._bounds = None  # before it is read: what fails now is read at the next look
            if self._bounds is None:
                tenants = self._routes.tenants()
                self._bounds = {t.name: t.egress for t in tenants.values() if t.egress is not None}
            route = self._routes.get(app)
        except (IsopodError, OSError):
            _log.exception("cannot read the routes")
            return None
        if route is None:
            return None
        return AppGrant(
            route.tenant,
            route.spec.network.allow,
            self._bounds.get(route.tenant),
            route.learns_until,
        )


class OfOneTenant:
    """Fulfils `isopod.host.outside.Outside` for a tenant's own worker, which names apps as it likes
    once it was taken over."""

    def __init__(self, broker: Broker, grants: Callable[[str], AppGrant | None], tenant: str):
        self._broker, self._grants, self._tenant = broker, grants, tenant

    async def resolve(self, app: str, host: str, port: int) -> list[str]:
        self._check(app)
        return await self._broker.resolve(app, host, port)

    async def connect(
        self,
        app: str,
        hosts: Sequence[str],
        address: str,
        port: int,
        *,
        datagrams: bool = False,
    ) -> socket.socket:
        self._check(app)
        return await self._broker.connect(app, hosts, address, port, datagrams=datagrams)

    def _check(self, app: str) -> None:
        grant = self._grants(app)
        if grant is None or grant.tenant != self._tenant:
            raise OutsideError("EACCES", "isopod: this app is not live any more")


async def run(
    pair: socket.socket,
    serve: Callable[[socket.socket, str], BrokerServer],
    broker: Broker,
    ready: int,
) -> None:
    """`pair`: the supervisor gives the workers' channels by it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    channels = TakenChannels(pair, serve)
    tell_ready(ready)
    known = egress.resolver_files()
    while not stop.is_set():
        # It may read these files and none that takes their place: then another process must.
        if egress.resolver_files() != known:
            _log.info("how names are looked up has changed")
            break
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_S)
        except TimeoutError:
            continue
    channels.close()
    broker.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="egress: %(message)s")
    # Connections being made and relays are descriptors, of all tenants in one process.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    handed = Handover.take()
    settings = handed.settings
    pair = socket.socket(fileno=int(child_value(CHANNELS_FD)))
    ready = int(child_value(READY_FD))
    sandbox = egress.shut_in(settings.routes_path.parent, features=handed.features)
    sandbox.forbid()
    grants = Grants(settings.routes_path)
    broker = Broker(
        grant_of=grants,
        private=[PrivateGrant.parse(one) for one in settings.egress_private],
    )

    def serve(channel: socket.socket, tenant: str) -> BrokerServer:
        return BrokerServer(channel, OfOneTenant(broker, grants, tenant) if tenant else broker)

    asyncio.run(run(pair, serve, broker, ready))
    os._exit(0)  # a look-up under way in a thread does not end


if __name__ == "__main__":
    main()
