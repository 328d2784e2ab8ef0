"""Live routes as workers see them: one file for the shared workers, and one for each tenant that
has a worker of its own.

Of an app behind a cordon the shared workers get what they need to hand its requests over; the whole
route is in `cordons/TENANT/routes/`, which they cannot read. That folder is also how the supervisor
knows that the tenant has a worker to be started, and its end that the worker has to go.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from isopod.errors import NameInvalid, QuotaExceeded
from isopod.model.cordon import for_shared_workers, own_worker
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName
from isopod.routes import RouteWriter
from isopod.settings import NodeSettings
from isopod.volumes.places import Places


class PublishedRoutes:
    """Every change is a transaction in the shared file; in a tenant's own, it comes before for an
    app that is new there, and after for one that is there: whatever fails in between, the version
    that was live serves on. Callers hold `Node.publishing`."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._shared = RouteWriter(settings.routes_path)
        self._own: dict[TenantName, RouteWriter] = {}
        self._tenants: dict[TenantName, Tenant] = {}
        self._behind: dict[str, TenantName] = {}  # apps behind a cordon, by their labels
        self._staged: dict[str, Route] = {}
        self._places = Places(settings.volumes_dir, settings.apart_volumes_dir)
        # Tenants of whom a volume may have to be moved; who moves them takes the names out.
        self.to_move: set[TenantName] = set()

    def close(self) -> None:
        for writer in (self._shared, *self._own.values()):
            writer.close()

    def replace_all(self, routes: Iterable[Route], tenants: Iterable[Tenant] = ()) -> None:
        """Make the files hold exactly these. A damaged one is replaced by a new one."""
        self._tenants = {tenant.name: tenant for tenant in tenants}
        shared: list[Route] = []
        own: defaultdict[TenantName, list[Route]] = defaultdict(list)
        self._behind.clear()
        for route in routes:
            tenant = self._own_of(route)
            self._announce(route, apart=tenant is not None)
            shared.append(route if tenant is None else for_shared_workers(route))
            if tenant is not None:
                own[tenant].append(route)
                self._behind[route.name] = tenant
        for name in (*self._left_behind(), *self._own):
            if name not in own:
                self._end(name)
        for name, mine in own.items():
            self._writer(name).replace_all(mine, self._row(name))
        self._shared.replace_all(shared, self._tenants.values())
        self.to_move.update(self._tenants)

    def put(self, *routes: Route) -> None:
        """All of them or none, of the shared ones."""
        places = [(route, self._own_of(route)) for route in routes]
        new = [(route, to) for route, to in places if to != self._behind.get(route.name)]
        for route, tenant in places:
            self._announce(route, apart=tenant is not None)
        for route, tenant in new:
            self._put_own(route, tenant)
        self._shared.put(*(for_shared_workers(r) if own else r for r, own in places))
        for route, tenant in new:
            self._moved(route.name, tenant)
        if any(tenant is not None for _, tenant in new):
            self._shared.wipe()  # the settings that were there
        for route, tenant in places:
            if (route, tenant) not in new:
                self._put_own(route, tenant)

    def behind(self, label: str) -> TenantName | None:
        """The tenant whose own worker serves the live app; None: a shared one."""
        return self._behind.get(label)

    def keeps_apart(self, label: str) -> bool:
        """Whether an app's volumes are to be where only its tenant's own worker can open them: for
        a version that is not live yet, while there is one."""
        for staged in self._staged.values():
            if staged.name == label:
                return self._own_of(staged) is not None
        return label in self._behind

    def stage(self, route: Route, name: str) -> TenantName | None:
        """Under a name that no visitor can ask for. Gives the tenant whose own worker finds it
        there; the broker of connections finds it in the shared file. QuotaExceeded."""
        tenant = self._own_of(route)
        if tenant is not None:
            self.room_for(tenant)
        self._staged[name] = route
        for apart in {tenant is not None, route.name in self._behind}:  # the live version waits too
            self._announce(route, apart=apart)
        if tenant is None:
            self._shared.put(route, name=name)
        else:
            self._shared.put(for_shared_workers(route), name=name)
            self._put_own(route, tenant, name=name)
        return tenant

    def unstage(self, name: str, tenant: TenantName | None, *, follows: bool) -> None:
        """`follows`: the version goes live next, so its worker is not ended for that moment."""
        self._shared.remove(name)
        if (staged := self._staged.pop(name, None)) is not None:
            self._announce(staged, apart=staged.name in self._behind)
        if tenant is None:
            return
        if follows and tenant in self._own:
            self._own[tenant].remove(name)
        else:
            self._remove_own(name, tenant)

    def remove(self, label: str) -> None:
        self._shared.remove(label)
        if (tenant := self._behind.pop(label, None)) is not None:
            self._remove_own(label, tenant)

    def put_tenant(self, tenant: Tenant, routes: Callable[[], Iterable[Route]]) -> None:
        """`routes` gives all that it has; asked for when they must move."""
        before = self._tenants.get(tenant.name)
        self._tenants[tenant.name] = tenant
        if tenant.name in self._own:
            self._own[tenant.name].put_tenant(tenant)
        self._shared.put_tenant(tenant)
        if (before.cordon if before else "shared") != tenant.cordon:
            self.put(*routes())
            self.to_move.add(tenant.name)  # of no app, too

    def remove_tenant(self, name: TenantName) -> None:
        self._shared.remove_tenant(name)
        self._tenants.pop(name, None)

    def room_for(self, tenant: TenantName) -> None:
        """Before a tenant gets a worker of its own. QuotaExceeded when the node gives no more."""
        has = {name for name, one in self._tenants.items() if one.cordon == "tenant"}
        has |= set(self._own)
        most = self._settings.cordons
        if tenant not in has and len(has) >= most:
            raise QuotaExceeded(
                "this node has no worker process left for one tenant alone",
                hint="use the shared workers, or ask the operator for more (the setting `cordons`)",
                details={"quota": "cordons"},
            )

    # ---------------------------------------------------------------------------------------

    def _own_of(self, route: Route) -> TenantName | None:
        return own_worker(route, self._tenants.get(route.tenant))

    def _announce(self, route: Route, *, apart: bool) -> None:
        """Before its workers see the route: they wait for volumes that are on their way."""
        for one in route.volumes:
            self._places.announce(route.tenant, one.name, apart=apart)
            self.to_move.add(route.tenant)

    def _row(self, name: TenantName) -> list[Tenant]:
        return [self._tenants[name]] if name in self._tenants else []

    def _home(self, name: TenantName) -> Path:
        return self._settings.cordons_dir / name

    def _writer(self, name: TenantName) -> RouteWriter:
        if name not in self._own:
            self._home(name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own[name] = RouteWriter(self._home(name) / "routes" / "routes.db")
        return self._own[name]

    def _put_own(self, route: Route, tenant: TenantName | None, *, name: str = "") -> None:
        if tenant is None:
            return
        writer = self._writer(tenant)
        for row in self._row(tenant):
            writer.put_tenant(row)
        writer.put(route, name=name)

    def _moved(self, label: str, to: TenantName | None) -> None:
        before = self._behind.pop(label, None)
        if to is not None:
            self._behind[label] = to
        self._move_log(label, before, to)
        if before is not None:
            self._remove_own(label, before)

    def _remove_own(self, label: str, tenant: TenantName) -> None:
        if tenant not in self._behind.values():
            self._end(tenant)
        elif tenant in self._own:
            self._own[tenant].remove(label)

    def _end(self, name: TenantName) -> None:
        """The supervisor sees it, ends the worker and removes what else that had."""
        if (writer := self._own.pop(name, None)) is not None:
            writer.close()
        shutil.rmtree(self._home(name) / "routes", ignore_errors=True)

    def _left_behind(self) -> list[TenantName]:
        """Who had a worker when control ran last."""
        found = []
        for folder in self._settings.cordons_dir.glob("*/routes"):
            with contextlib.suppress(NameInvalid):
                found.append(TenantName.parse(folder.parent.name))
        return found

    def _move_log(self, label: str, before: TenantName | None, to: TenantName | None) -> None:
        """What was logged so far goes along: the app's next worker can write nowhere else."""
        there, here = (
            self._settings.logs_dir if name is None else self._home(name) / "logs"
            for name in (before, to)
        )
        here.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (f"{label}.jsonl.1", f"{label}.jsonl"):
            with contextlib.suppress(OSError):  # there is none, as a rule
                (there / name).rename(here / name)
