"""What a worker knows of routes and tenants, and which apps are for it to serve.

Each request asks, so what was read is kept until the table says that it has changed."""

from __future__ import annotations

from collections.abc import Mapping

from isopod.gateway.lines import Peer
from isopod.gateway.volumes import HeldVolumes
from isopod.model.cordon import own_worker
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.routes import RouteTable

_MAX_KNOWN = 4096  # unknown names are kept too, and come from strangers


class WorkerRoutes:
    def __init__(
        self, table: RouteTable, *, tenant: TenantName | None, volumes: HeldVolumes
    ) -> None:
        """`tenant`: the one whose own worker this is, None for a shared one."""
        self.table = table
        self._tenant = tenant
        self._volumes = volumes
        self._tenants: Mapping[TenantName, Tenant] = {}
        self._known: dict[str, Route | None] = {}

    def find(self, name: str) -> Route | None:
        """Without a look at the database for every request."""
        try:
            return self._known[name]
        except KeyError:
            route = self.table.get(name)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[name] = route
            return route

    def forget(self) -> None:
        """The table has changed."""
        self._known.clear()

    def read_tenants(self) -> Mapping[TenantName, Tenant]:
        self._tenants = self.table.tenants()
        return self._tenants

    def elsewhere(self, route: Route) -> Peer | None:
        """The worker that must answer for an app; None: any, and so this one."""
        own = own_worker(route, self._tenants.get(route.tenant))
        if own != self._tenant:
            return 0 if own is None else own
        holder = self._volumes.elsewhere(route)
        # A tenant's own worker is one: when another still has them, an instance waits here.
        return holder if self._tenant is None else None

    def mine(self, name: str) -> Route | None:
        """The route of an app, if this worker is of those that serve it. Where its volumes are is
        not asked: that takes them."""
        route = self.table.get(name)
        if route is None:
            return None
        own = own_worker(route, self._tenants.get(route.tenant))
        return route if own == self._tenant else None
