"""What a worker does when control wants an app's own module compiled, before its version goes live:
it begins, and says at each question whether that has ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from isopod.blobs.trees import TreeCache
from isopod.errors import EngineError, IsopodError
from isopod.model.ids import Digest
from isopod.runtimes.base import Guests, LoadsModules

_MOST_KNOWN = 256
_Key = tuple[str, ...]


class ModuleMaking:
    """On one loop."""

    def __init__(self, runtimes: Mapping[str, Guests], trees: TreeCache) -> None:
        self._runtimes, self._trees = runtimes, trees
        self._made: OrderedDict[_Key, asyncio.Task[None]] = OrderedDict()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"ready": whether it has ended}, {"error": why there will be none, as it goes over the
        wire}. `request`: runtime, tenant, app_tree, site_tree, entrypoint."""
        runtime = self._runtimes.get(str(request.get("runtime")))
        if not isinstance(runtime, LoadsModules):
            return {"ready": True}
        names = ("runtime", "tenant", "app_tree", "site_tree", "entrypoint")
        key = tuple(str(request.get(name)) for name in names)
        task = self._made.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(runtime, *key[1:]))
            task.add_done_callback(lambda it: it.cancelled() or it.exception())
            self._made[key] = task
            while len(self._made) > _MOST_KNOWN:  # of those that nobody asked for again
                self._made.popitem(last=False)
        if not task.done():
            return {"ready": False}
        del self._made[key]
        if task.cancelled() or (error := task.exception()) is None:
            return {"ready": True}
        if not isinstance(error, IsopodError):
            error = EngineError("the node could not compile the app's module")
        return {"error": error.to_wire()}

    async def _make(
        self, runtime: LoadsModules, tenant: str, app_tree: str, site_tree: str, entrypoint: str
    ) -> None:
        app, site = (self._trees.path(Digest.parse(one)) for one in (app_tree, site_tree))
        await runtime.make(runtime.module(app, site, entrypoint), tenant)

    def close(self) -> None:
        for task in self._made.values():
            task.cancel()
