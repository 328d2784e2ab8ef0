"""A command of an app's: its program, started with words instead of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from isopod.engine.instance import Instance
from isopod.engine.scheduler import Scheduler
from isopod.engine.streams import STDOUT
from isopod.errors import CommandFailed, GuestFailed, IsopodError
from isopod.runtimes.guest import OutputSink
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.wasi.serve import Program, ProgramGuest


class ProgramCommand(ProgramGuest):
    """`await start()` is all of it. What it writes is output; there is nothing to read."""

    def __init__(
        self,
        program: Program,
        words: Sequence[str],
        *,
        modules: OwnModules,
        scheduler: Scheduler,
        output: OutputSink,
    ) -> None:
        super().__init__(program, modules=modules, scheduler=scheduler, output=output)
        self._spec = replace(self._spec, argv=tuple(words))
        self._ended: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Raises CommandFailed, or what ended it."""
        await super().start()
        if self._gone:
            raise GuestFailed("the guest was ended")
        self._ended = asyncio.get_running_loop().create_future()
        instance = self._make(self._program.env)
        instance.streams = self
        instance.on_exit = self._on_exit
        instance.start([("_start", None)])
        self._scheduler.wake(instance)
        try:
            await self._ended
        finally:
            self._end(instance)

    def close(self) -> None:
        super().close()
        if self._instance is not None:
            self._end(self._instance)
        self._settle(GuestFailed("the guest was ended"))

    def write(self, fd: int, data: bytes) -> bool:
        self._output("stdout" if fd == STDOUT else "stderr", data)
        return True

    def read(self, most: int) -> bytes:  # noqa: ARG002
        return b""

    def _end(self, instance: Instance) -> None:
        self._gone = True
        self._sockets.close()
        instance.close()

    def _on_exit(self, error: IsopodError | None) -> None:
        status = None if error is None else error.details.get("exit_status")
        if status and isinstance(error, GuestFailed):
            error = CommandFailed(f"the command ended with status {status}", details=error.details)
        self._settle(None if status == 0 else error)

    def _settle(self, error: IsopodError | None) -> None:
        if self._ended is None or self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
