"""Which worker processes serve an app: those that all share, or its tenant's own.

Decided in one place, and by everybody alike: control writes the routes by it, shared workers hand
requests over by it, and a tenant's own worker refuses what is not its by it.
"""

from __future__ import annotations

from dataclasses import replace

from isopod.model.app import AppSpec
from isopod.model.route import Route
from isopod.model.tenant import Tenant, TenantName


def own_worker(route: Route, tenant: Tenant | None) -> TenantName | None:
    """The tenant whose own worker serves the route; None: any shared one. The tenant's setting is
    for all of its apps; without it, an app may ask for itself."""
    return own_worker_of(route.spec, route.tenant, tenant)


def own_worker_of(spec: AppSpec, name: TenantName, tenant: Tenant | None) -> TenantName | None:
    """The same of a version that has no route yet."""
    asked = spec.isolation.cordon == "tenant"
    return name if asked or (tenant is not None and tenant.cordon == "tenant") else None


def for_shared_workers(route: Route) -> Route:
    """What those need to know of an app that they hand over, and the broker of connections of what
    it may reach: not its settings or secrets, and nothing to start it from."""
    return replace(route, snapshot=None, secrets={}, spec=replace(route.spec, env={}))
