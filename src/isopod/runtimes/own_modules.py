"""Modules that apps bring themselves: each linked once per process, when its first guest starts."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Hashable
from pathlib import Path
from types import MappingProxyType

from isopod.engine.code_window import WindowFull
from isopod.engine.linker import Imports, Linkage
from isopod.engine.machine_code import Loaded, MachineCode
from isopod.engine.module_check import Exports, check_module
from isopod.errors import MachineCodeFull


class OwnModules:
    """On one loop. Those that were used least recently are let go (see `KeptModules`); who runs in
    one keeps it."""

    def __init__(
        self,
        machine_code: MachineCode,
        imports: Imports,
        *,
        exports: Exports,
        optional: Exports = MappingProxyType({}),
    ) -> None:
        """`imports`: made before this process gives up the right to make machine code. `exports`
        and `optional`: see `check_module`. A build has checked the same; that was in a process
        which ran the app afterwards, and this is where its instances are made."""
        self._machine_code = machine_code
        self._imports = imports
        self._exports, self._optional = exports, optional
        self._kept = machine_code.kept
        self._kind = object()  # other runtimes link the same module otherwise
        self._under_way: dict[Hashable, asyncio.Task[Linkage]] = {}

    def known(self, file: Path, owner: str) -> Linkage | None:
        """If it is linked: no thread, no wait."""
        return self._kept.get((self._kind, owner, file))

    async def make(self, file: Path, owner: str) -> None:
        """Have it compiled, and linked when somebody needs it. Raises as `linkage`."""
        if self.known(file, owner) is None:
            await self._machine_code.make(file, owner)

    async def linkage(self, file: Path, owner: str) -> Linkage:
        """The module in `file`, which never changes, of tenant `owner`. Raises ModuleInvalid,
        ModuleTooCostly, EngineError, MachineCodeFull and NodeBusy."""
        if (known := self.known(file, owner)) is not None:
            return known
        key = (owner, file)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._link(file, owner))
            self._under_way[key] = task
            task.add_done_callback(functools.partial(self._over, key))
        # Who gives up does not end it for the others.
        return await asyncio.shield(task)

    def _over(self, key: Hashable, task: asyncio.Task[Linkage]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # if nobody waits for it any more, nobody is told

    async def _link(self, file: Path, owner: str) -> Linkage:
        loaded = await self._load(file, owner)
        try:
            check_module(loaded.module, self._imports, self._exports, optional=self._optional)
            linkage = Linkage(self._imports.engine, loaded.module, self._imports)
        except BaseException:
            loaded.release()
            raise
        # Its instances hold it: afterwards nothing runs in that code.
        weakref.finalize(linkage, loaded.release).atexit = False
        self._kept.put((self._kind, owner, file), linkage, owner=owner, size=loaded.size)
        return linkage

    async def _load(self, file: Path, owner: str) -> Loaded:
        while True:
            try:
                return await self._machine_code.load(file, owner)
            except MachineCodeFull:
                if not self._kept.let_go(owner):
                    raise
            except WindowFull:
                if not self._kept.let_go():
                    raise
