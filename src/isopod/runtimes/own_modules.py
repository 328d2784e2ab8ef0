"""Modules that apps bring themselves: each linked once per process, when its first guest starts."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from pathlib import Path

from isopod.engine.linker import Imports, Linkage
from isopod.engine.machine_code import Loaded, MachineCode
from isopod.errors import NodeBusy

_KEPT = 256


class OwnModules:
    """On one loop. The least recently used are let go; who runs in one keeps it."""

    def __init__(self, machine_code: MachineCode, imports: Imports) -> None:
        """`imports`: made before this process gives up the right to make machine code."""
        self._machine_code = machine_code
        self._imports = imports
        self._linked: OrderedDict[tuple[str, Path], Linkage] = OrderedDict()
        self._under_way: dict[tuple[str, Path], asyncio.Task[Linkage]] = {}

    def known(self, file: Path, owner: str) -> Linkage | None:
        """If it is linked: no thread, no wait."""
        key = (owner, file)
        found = self._linked.get(key)
        if found is not None:
            self._linked.move_to_end(key)
        return found

    async def linkage(self, file: Path, owner: str) -> Linkage:
        """The module in `file`, which never changes, of tenant `owner`. Raises ModuleInvalid,
        EngineError and NodeBusy."""
        if (known := self.known(file, owner)) is not None:
            return known
        key = (owner, file)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._link(file, owner))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # Who gives up does not end it for the others.
        return await asyncio.shield(task)

    async def _link(self, file: Path, owner: str) -> Linkage:
        loaded = await self._load(file, owner)
        try:
            linkage = Linkage(self._imports.engine, loaded.module, self._imports)
        except BaseException:
            loaded.release()
            raise
        # Its instances hold it: afterwards nothing runs in that code.
        weakref.finalize(linkage, loaded.release).atexit = False
        self._linked[owner, file] = linkage
        while len(self._linked) > _KEPT:
            self._linked.popitem(last=False)
        return linkage

    async def _load(self, file: Path, owner: str) -> Loaded:
        while True:
            try:
                return await asyncio.to_thread(self._machine_code.load, file, owner)
            except NodeBusy:
                if not self._linked:
                    raise
                self._linked.popitem(last=False)
