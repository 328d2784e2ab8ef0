"""Which version of an app is live: changed by one caller at a time, in one transaction, and whole.

state -> routes.db -> workers look. When two switch an app at once all the same, the routes get what
state says last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from isopod.control.amounts import check_egress, check_storage, check_tenant
from isopod.control.audit import entry
from isopod.control.node import Node, fitting, route_of
from isopod.control.timetable import set_live
from isopod.errors import AppNotFound, IsopodError, VersionNotFound
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName
from isopod.state.apps import App

T = TypeVar("T")


def hold(held: ExitStack, node: Node, tenant: TenantName, name: AppName) -> None:
    """Nobody else deploys that app, or rolls it back, until then. DeployInProgress."""
    message = f"another deploy of app {name!r} is under way"
    held.enter_context(node.one_deploy(f"{tenant} {name}", message))


async def to_the_end(work: Coroutine[Any, Any, T], *, held: ExitStack) -> T:
    """Not cut by a caller that hangs up: from here it is done or it is not. What is `held` is let
    go when it has ended, and not before."""
    kept = held.pop_all()

    async def with_kept() -> T:
        with kept:
            return await work

    return await asyncio.shield(with_kept())


async def make_live(
    who: Principal,
    action: str,
    app: App,
    version: AppVersion,
    *,
    source: str | None,
    node: Node,
) -> None:
    """Let an existing version serve. `source` None: leave where the app came from.

    AppNotFound; VersionNotFound when it was forgotten since it was read.
    """

    def commit() -> int:
        now = node.clock()
        with node.state.transaction() as t:
            quota, mine = check_tenant(who, t.node.tenants), t.of(who.tenant)
            before = mine.apps.get(app.name)
            if before is None or before.label != app.label:
                raise AppNotFound(f"there is no app {app.name!r}")
            there = mine.versions.get(app.label, version.number)
            if there is None or there.digest != version.digest:
                raise VersionNotFound(
                    f"version {version.number} of app {app.name!r} was removed a moment ago",
                    hint="deploy its source again, or choose another: `isopod app NAME`",
                )
            check_storage(quota, version, mine=mine, blobs=node.blobs)
            check_egress(replace(there.spec, name=app.name), who.tenant, t.node.tenants)
            if fitting(there, mine.secrets.sealed(app.name)).snapshot is None:
                mine.versions.set_snapshot(there, None)
            mine.volumes.mount(app.label, [one.name for one in version.spec.volumes])
            if source is not None:
                mine.apps.save(app.name, source=source, now=now)
            set_live(app.name, version, mine=mine, now=now)
            mine.audit.add(entry(who, action, app.name, now, details={"version": version.number}))
        return before.live_version

    before = await asyncio.to_thread(commit)
    await follow(who.tenant, app, version, before=before, node=node)


async def follow(
    tenant: TenantName, app: App, version: AppVersion, *, before: int, node: Node
) -> None:
    """Routes and workers follow state; when routes cannot, state goes back."""
    try:
        live = await asyncio.to_thread(put_route, app, tenant, node)
    except IsopodError:
        await asyncio.to_thread(_take_back, tenant, app, version, before, node)
        raise
    await node.workers.refresh(app.label)
    if live is not None:
        node.renewals.look_at(live, tenant)


def put_route(app: App, tenant: TenantName, node: Node) -> AppVersion | None:
    """Make the route what state says. Gives the version that is live; None: there is no app."""
    with node.publishing:
        # Read here: of two switches at once, the later one's may be what is live. It may have got
        # a new snapshot, too, or be gone: then who deleted it takes the route away.
        mine = node.state.of(tenant)
        now = mine.apps.labelled(app.label)
        live = mine.versions.get(app.label, now.live_version) if now else None
        if live is not None:
            until = node.learns_until(app.label)
            sealed = mine.secrets.sealed(app.name)
            node.routes.put(route_of(live, tenant, sealed, mine.volumes, learns_until=until))
        return live


def _take_back(tenant: TenantName, app: App, version: AppVersion, before: int, node: Node) -> None:
    """Unless another switch, or a deletion, came after ours."""
    with node.state.transaction() as t:
        mine = t.of(tenant)
        now = mine.apps.labelled(app.label)
        if now is None or now.live_version != version.number:
            return
        if not before:
            mine.apps.delete(app.name, now=node.clock())
        elif earlier := mine.versions.get(app.label, before):  # else it was forgotten meanwhile
            mine.volumes.mount(app.label, [one.name for one in earlier.spec.volumes])
            set_live(app.name, earlier, mine=mine, now=node.clock())
