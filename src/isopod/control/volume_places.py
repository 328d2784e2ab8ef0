"""Volumes follow the worker that serves their app: apart from all others while that is their
tenant's own, with them while it is a shared one (see `volumes.places`).

State says where each volume belongs and the disk where it is, and nothing else is remembered: what
a killed control left is found by the next one. A volume that no app mounts is apart when its tenant
is; otherwise it stays where it is, since what was apart once may be meant to be.
"""

from __future__ import annotations

import asyncio
import logging
import time

from isopod.control.node import Node
from isopod.errors import IsopodError, VolumeNotFound
from isopod.model.tenant import TenantName
from isopod.state.volumes import Volume

_log = logging.getLogger("isopod.volumes")
_LOOK_S = 0.2
_AGAIN_S = 2.0
_ROUTES_S = 1.0  # until every worker has seen the routes by which its app is served elsewhere
# So long a volume's former worker may answer who waits there already. Then its instance is ended.
_GENTLY_S = 5.0
_ATTEMPT_S = 0.05


async def keep_places(node: Node) -> None:
    """Until cancelled."""
    under_way: dict[tuple[TenantName, str], asyncio.Task[None]] = {}
    try:
        while True:
            while node.routes.to_move:
                tenant = node.routes.to_move.pop()
                for volume, apart in await asyncio.to_thread(misplaced, tenant, node):
                    key = (tenant, volume.name)
                    if key not in under_way or under_way[key].done():
                        moving = _move(tenant, volume, apart, node)
                        under_way[key] = asyncio.create_task(moving)
            under_way = {key: task for key, task in under_way.items() if not task.done()}
            await asyncio.sleep(_LOOK_S)
    finally:
        for task in under_way.values():
            task.cancel()


def misplaced(tenant: TenantName, node: Node) -> list[tuple[Volume, bool]]:
    """Volumes that have to be moved, and whether that is to where they are apart. Blocks."""
    found = []
    known = node.state.node.tenants.get(tenant)
    for volume in node.state.of(tenant).volumes.all():
        if volume.app:
            apart = node.routes.keeps_apart(volume.app)
        elif known is not None and known.cordon == "tenant":
            apart = True
        else:
            continue
        if node.places.is_apart(tenant, volume.name) != apart:
            found.append((volume, apart))
    return found


async def _move(tenant: TenantName, volume: Volume, apart: bool, node: Node) -> None:
    key = f"{tenant} {volume.name}"
    while key in node.copying:  # noqa: ASYNC110  a copy lasts for seconds or minutes
        await asyncio.sleep(_LOOK_S)
    node.copying.add(key)
    try:
        await asyncio.sleep(_ROUTES_S)
        insist_at = time.monotonic() + _GENTLY_S
        with node.places.moving(tenant, volume.name, apart=apart) as attempt:
            # Not in a thread, which would go on with closed descriptors when this is cancelled.
            while not attempt(time.monotonic() >= insist_at):  # noqa: ASYNC110  a worker's lock
                await asyncio.sleep(_ATTEMPT_S)
        node.routes.to_move.add(tenant)  # it may belong elsewhere by now
    except VolumeNotFound as error:
        _log.error("of tenant %s: %s", tenant, error)  # nothing helps but to restore it
        node.places.wait_no_more(tenant, volume.name)
    except (IsopodError, OSError) as error:
        _log.error("volume %r of tenant %s cannot be moved: %s", volume.name, tenant, error)
        await asyncio.sleep(_AGAIN_S)
        node.routes.to_move.add(tenant)
    finally:
        node.copying.discard(key)
