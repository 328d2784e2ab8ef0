"""Going back to an earlier version: nothing is built, its blobs are checked first."""

from __future__ import annotations

import asyncio

from isopod.control.deploys import make_live
from isopod.control.node import Node
from isopod.errors import AppNotFound, VersionNotFound
from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.principal import Principal


async def rollback(_who: Principal, name: AppName, number: int | None, *, node: Node) -> AppVersion:
    """Make version `number` live, or the one before the live one.

    AppNotFound, VersionNotFound; BlobMissing or BlobCorrupt when what it needs is damaged, and
    then the live version stays.
    """
    version = await asyncio.to_thread(_choose, name, number, node)
    await asyncio.shield(make_live(version, source=None, node=node))
    return version


def _choose(name: AppName, number: int | None, node: Node) -> AppVersion:
    app = node.state.apps.get(name)
    if app is None:
        raise AppNotFound(f"there is no app {name!r}")
    if number is None:
        earlier = [v for v in node.state.versions.of_app(name) if v.number < app.live_version]
        if not earlier:
            raise VersionNotFound(
                f"app {name!r} has no version before its live one, {app.live_version}"
            )
        chosen = earlier[0]
    else:
        found = node.state.versions.get(name, number)
        if found is None:
            raise VersionNotFound(f"app {name!r} has no version {number}")
        chosen = found
    for digest in (chosen.build.app_tree, chosen.build.site_tree):
        node.blobs.open_verified(digest)
    return chosen
