"""Tenants, for the operator alone: making and ending them, their quota, cordon and suspension.

What a worker needs to know of a tenant follows state into routes.db.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isopod.control.apps import end_app
from isopod.control.audit import audited, entry
from isopod.control.node import Node, route_of
from isopod.errors import NameTaken, TenantInUse, TenantNotFound, UsageError
from isopod.model.network import (
    MAX_TARGETS,
    EgressPolicy,
    EgressRule,
    policy_from_json,
    policy_to_json,
)
from isopod.model.principal import Principal
from isopod.model.route import Route
from isopod.model.tenant import DEFAULT_TENANT, Cordon, Quota, Tenant, TenantName
from isopod.state.apps import App


@dataclass(frozen=True, slots=True)
class TenantSummary:
    name: str
    created_at: float
    quota: dict[str, int]  # 0: no bound but the node's
    cordon: str
    suspended: bool
    egress: list[str] | None  # what its apps may list; None: all that is public
    apps: int
    members: int


@dataclass(frozen=True, slots=True)
class TenantChange:
    """None: as it is. `quota` names what changes in it."""

    quota: Mapping[str, int]
    cordon: Cordon | None = None
    suspended: bool | None = None
    egress: Sequence[str] | None = None  # rules; ("any",): no bound, ("none",): nothing

    def of(self, tenant: Tenant) -> Tenant:
        return replace(
            tenant,
            quota=replace(tenant.quota, **self.quota),
            cordon=self.cordon or tenant.cordon,
            suspended=tenant.suspended if self.suspended is None else self.suspended,
            egress=tenant.egress if self.egress is None else _policy(self.egress),
        )

    def check(self) -> None:
        """UsageError."""
        for name, value in self.quota.items():
            if name not in Quota.__slots__:
                known = ", ".join(Quota.__slots__)
                raise UsageError(f"there is no quota {name[:80]!r}", hint=f"there are: {known}")
            if not 0 <= value < 2**53:
                raise UsageError(f"quota {name!r} is below 0 or out of reason")
        if self.egress is not None:
            _policy(self.egress)

    def check_room(self, name: TenantName, node: Node) -> None:
        """QuotaExceeded."""
        if self.cordon == "tenant":
            with node.publishing:
                node.routes.room_for(name)


def _policy(rules: Sequence[str]) -> EgressPolicy:
    """UsageError."""
    if list(rules) == ["any"]:
        return None
    if list(rules) == ["none"]:
        return ()
    if not rules or len(rules) > MAX_TARGETS:
        raise UsageError(
            f"an egress policy has 1 to {MAX_TARGETS} entries, not {len(rules)}",
            hint="'any' alone is no bound, 'none' alone is nothing",
        )
    for rule in rules:
        try:
            EgressRule.parse(rule)
        except ValueError as bad:
            raise UsageError(
                f"egress {rule[:80]!r} {bad}",
                hint="e.g. api.example.com:443, *.example.com:443, *:443, db.example.com:*",
            ) from None
    return policy_from_json(rules)


async def list_tenants(who: Principal, *, node: Node) -> list[TenantSummary]:
    """By name."""
    who.need_operator()

    def read() -> list[TenantSummary]:
        return [_summary(tenant, node) for tenant in node.state.node.tenants.all()]

    return await asyncio.to_thread(read)


async def get_tenant(who: Principal, name: TenantName, *, node: Node) -> TenantSummary:
    """TenantNotFound."""
    who.need_operator()
    return await asyncio.to_thread(lambda: _summary(_existing(name, node), node))


async def create_tenant(
    who: Principal, name: TenantName, change: TenantChange, *, node: Node
) -> TenantSummary:
    """NameTaken, also by one that was deleted."""

    def create() -> TenantSummary:
        now = node.clock()
        change.check_room(name, node)
        tenant = change.of(Tenant(name, created_at=now))
        with node.state.transaction() as t:
            if t.node.tenants.is_taken(name):
                raise NameTaken(
                    f"tenant name {name!r} is taken, or was once",
                    hint="choose another; a name always means the same tenant in usage records",
                )
            t.node.tenants.add(tenant)
            t.of(name).audit.add(entry(who, "tenant.create", name, now, details=_about(tenant)))
        _tell_workers(name, node)
        return _summary(tenant, node)

    async with audited(who, "tenant.create", name, node=node):
        who.need_operator()
        change.check()
        made = await asyncio.to_thread(create)
    await node.workers.refresh()
    return made


async def change_tenant(
    who: Principal, name: TenantName, change: TenantChange, *, node: Node
) -> TenantSummary:
    """TenantNotFound."""

    def commit() -> TenantSummary:
        now = node.clock()
        change.check_room(name, node)
        with node.state.transaction() as t:
            tenant = t.node.tenants.get(name)
            if tenant is None:
                raise TenantNotFound(f"there is no tenant {name!r}")
            tenant = change.of(tenant)
            t.node.tenants.change(tenant)
            t.of(name).audit.add(entry(who, "tenant.change", name, now, details=_about(tenant)))
        _tell_workers(name, node)
        return _summary(tenant, node)

    async with audited(who, "tenant.change", name, node=node):
        who.need_operator()
        change.check()
        changed = await asyncio.to_thread(commit)
    await node.workers.refresh()
    return changed


async def delete_tenant(who: Principal, name: TenantName, *, force: bool, node: Node) -> None:
    """With its members and tokens, and, by `force`, its apps and volumes. Its audit log and what it
    used stay.
    TenantNotFound, TenantInUse; UsageError for the tenant that every node has."""

    def forget() -> list[App]:
        now = node.clock()
        with node.state.transaction() as t:
            if t.node.tenants.get(name) is None:
                raise TenantNotFound(f"there is no tenant {name!r}")
            mine = t.of(name)
            apps, volumes = mine.apps.all(), mine.volumes.all()
            if (apps or volumes) and not force:
                raise TenantInUse(
                    f"tenant {name!r} has {len(apps)} apps and {len(volumes)} volumes"
                )
            for app in apps:
                mine.apps.delete(app.name, now=now)
            for volume in volumes:
                mine.volumes.delete(volume.name)
            mine.tokens.revoke_all(now=now)
            mine.members.delete_all()
            mine.secrets.delete_all()
            t.node.tenants.delete(name, now=now)
            mine.audit.add(entry(who, "tenant.delete", name, now, details={"apps": len(apps)}))
        with node.publishing:
            for app in apps:
                node.routes.remove(app.label)
            node.routes.remove_tenant(name)
        return apps

    async with audited(who, "tenant.delete", name, node=node):
        who.need_operator()
        if name == DEFAULT_TENANT:
            raise UsageError(f"tenant {name!r} cannot be deleted", hint="delete its apps")
        apps = await asyncio.shield(asyncio.to_thread(forget))
    for app in apps:
        await end_app(app, name, node=node)
    # Its name is never given again: what an instance that is about to end still writes is nobody's.
    await asyncio.to_thread(node.places.remove_tenant, name)
    node.volume_sizes.forget(name)


def _existing(name: TenantName, node: Node) -> Tenant:
    tenant = node.state.node.tenants.get(name)
    if tenant is None:
        raise TenantNotFound(f"there is no tenant {name!r}")
    return tenant


def _tell_workers(name: TenantName, node: Node) -> None:
    with node.publishing:
        # Read again: of two changes at once the later one is written later.
        tenant = node.state.node.tenants.get(name)
        if tenant is not None:
            node.routes.put_tenant(tenant, lambda: _live_routes(name, node))


def _live_routes(name: TenantName, node: Node) -> list[Route]:
    mine, found = node.state.of(name), []
    for app in mine.apps.all():
        live = mine.versions.get(app.label, app.live_version)
        if live is not None:
            sealed = mine.secrets.sealed(app.name)
            found.append(route_of(live, name, sealed, mine.volumes))
    return found


def _about(tenant: Tenant) -> dict[str, object]:
    quota = {name: value for name, value in tenant.quota.to_json().items() if value}
    return {
        "quota": quota,
        "cordon": tenant.cordon,
        "suspended": tenant.suspended,
        "egress": policy_to_json(tenant.egress),
    }


def _summary(tenant: Tenant, node: Node) -> TenantSummary:
    mine = node.state.of(tenant.name)
    return TenantSummary(
        name=tenant.name,
        created_at=tenant.created_at,
        quota=tenant.quota.to_json(),
        cordon=tenant.cordon,
        suspended=tenant.suspended,
        egress=policy_to_json(tenant.egress),
        apps=mine.apps.count(),
        members=mine.members.count(),
    )
