"""Going back to an earlier version: nothing is built, its blobs are checked first."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing

from isopod.control.apps import find_app
from isopod.control.audit import audited
from isopod.control.module_making import make_module
from isopod.control.node import Node
from isopod.control.switching import hold, make_live, to_the_end
from isopod.errors import VersionNotFound
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.state.apps import App


async def rollback(
    who: Principal, name: AppName, number: int | None, *, node: Node
) -> tuple[App, AppVersion]:
    """Make version `number` live, or the one before the live one.

    AppNotFound, VersionNotFound, DeployInProgress; BlobMissing or BlobCorrupt when what it needs is
    damaged, and then the live version stays.
    """
    async with audited(who, "app.rollback", name, node=node):
        who.need("deploy")
        with ExitStack() as held:
            hold(held, node, who.tenant, name)
            app = await find_app(who, name, node=node)
            version = await asyncio.to_thread(_choose, who, app, number, node)
            async with aclosing(
                make_module(who.tenant, version.spec, version.build, node=node)
            ) as steps:
                async for _ in steps:
                    pass  # an answer has no steps
            work = make_live(who, "app.rollback", app, version, source=None, node=node)
            await to_the_end(work, held=held)
    return app, version


def _choose(who: Principal, app: App, number: int | None, node: Node) -> AppVersion:
    versions = node.state.of(who.tenant).versions
    if number is None:
        earlier = [v for v in versions.of_app(app.label) if v.number < app.live_version]
        if not earlier:
            raise VersionNotFound(
                f"app {app.name!r} has no version before its live one, {app.live_version}"
            )
        chosen = earlier[0]
    else:
        found = versions.get(app.label, number)
        if found is None:
            raise VersionNotFound(f"app {app.name!r} has no version {number}")
        chosen = found
    for digest in (chosen.build.app_tree, chosen.build.site_tree):
        node.blobs.open_verified(digest)
    return chosen
