"""The engine and its scheduler in this process, with a neighbour that must go on answering."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import wasmtime

from isopod.engine.config import MIB, EngineSettings, make_engine
from isopod.engine.instance import Instance, InstanceSpec, Preopen, State
from isopod.engine.linker import Linkage
from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.server.watchdog import waited_for_cpu_s

GUESTS = Path(__file__).parents[1] / "guests"
_C = Path(__file__).parent / "c"
_T = TypeVar("_T")
# What caches and allocators may keep of an attack.
_KEPT_BYTES = 64 * MIB


@dataclass
class Attack:
    """What became of one. `pause_s` is the longest that the neighbour had to wait meanwhile, but
    for what this process waited for a core, as other processes had them."""

    instance: Instance
    frames: list[bytes] = field(default_factory=list)
    error: IsopodError | None = None
    ended: bool = False
    took_s: float = 0.0
    pause_s: float = 0.0


class Arena:
    def __init__(self, runner: asyncio.Runner, cache: Path) -> None:
        self._runner = runner
        self._cache = cache
        self.engine = make_engine(EngineSettings())
        self._linkages: dict[str, Linkage] = {}
        self.scheduler = runner.run(_made(lambda: Scheduler(self.engine)))
        self._instances: list[Instance] = []
        self._neighbour = self.instance(self.linkage((GUESTS / "echo.wat").read_text()))
        self._heard: list[bytes] = []
        self._neighbour.on_call = self._heard.append
        self._neighbour.start([("turn", b"hello")])
        self._instances.clear()  # it stays
        self.assert_neighbour()

    def run(self, coroutine: Awaitable[_T]) -> _T:
        async def main() -> _T:
            return await coroutine

        return self._runner.run(main())

    # -- guests -----------------------------------------------------------------------------

    def linkage(self, text: str | bytes) -> Linkage:
        """Of a module's text, or of its bytes."""
        key = text if isinstance(text, str) else text.hex()
        if key not in self._linkages:
            self._linkages[key] = Linkage(self.engine, wasmtime.Module(self.engine, text))
        return self._linkages[key]

    def c(self, name: str) -> Linkage:
        """Of a guest in C, compiled for WASI."""
        out = self._cache / f"{name}.wasm"
        if not out.exists():
            command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi"]
            options = ["-mexec-model=reactor", "-O1", "-s", "-o", str(out), str(_C / f"{name}.c")]
            subprocess.run([*command, *options], check=True)
        return self.linkage(out.read_bytes())

    def instance(
        self,
        linkage: Linkage,
        *,
        memory_mib: int = 64,
        disk_mib: int | None = 16,
        folders: Mapping[str, Path] | None = None,
        env: tuple[tuple[str, str], ...] = (),
        clock_step_ns: int = 1_000_000,
    ) -> Instance:
        preopens = [
            Preopen(path, f"/{name}", writable=name == "tmp")
            for name, path in (folders or {}).items()
        ]
        spec = InstanceSpec(
            argv=("attacker",),
            env=env,
            preopens=tuple(preopens),
            memory_bytes=memory_mib * MIB,
            disk_bytes=None if disk_mib is None else disk_mib * MIB,
            clock_step_ns=clock_step_ns,
        )
        made = Instance(linkage, spec)
        self._instances.append(made)
        return made

    def attack(
        self,
        instance: Instance,
        calls: Sequence[tuple[str, bytes | None]],
        *,
        replies: Sequence[bytes] = (),
        deadline_s: float = 300.0,
    ) -> Attack:
        """Run the guest's calls to their end, or to the deadline, when it is closed as the
        gateway does; the neighbour talks all the time."""
        told = Attack(instance)
        self.run(self._attack(told, calls, list(replies), deadline_s))
        return told

    async def _attack(
        self,
        told: Attack,
        calls: Sequence[tuple[str, bytes | None]],
        replies: list[bytes],
        deadline_s: float,
    ) -> None:
        instance, over = told.instance, asyncio.Event()

        def on_call(frame: bytes) -> None:
            told.frames.append(frame)
            instance.reply(replies.pop(0) if replies else b"")

        def on_exit(error: IsopodError | None) -> None:
            told.error, told.ended = error, True
            over.set()

        instance.on_call, instance.on_exit = on_call, on_exit
        instance.start(calls)
        began = time.monotonic()
        talk = asyncio.get_running_loop().create_task(self._talk(told))
        self.scheduler.wake(instance)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await over.wait()
        told.took_s = time.monotonic() - began
        if not told.ended:
            instance.close()
        talk.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talk

    async def _talk(self, told: Attack) -> None:
        while True:
            began = _run_s()
            try:
                await self._exchange()
            finally:
                told.pause_s = max(told.pause_s, _run_s() - began)

    async def _exchange(self) -> None:
        neighbour, said = self._neighbour, os.urandom(8)
        if neighbour.state is State.CALLING:
            neighbour.reply(said)
        self._heard.clear()
        self.scheduler.wake(neighbour)
        async with asyncio.timeout(60):
            while not self._heard:
                await asyncio.sleep(0)

    def close_guests(self) -> None:
        for instance in self._instances:
            instance.close()
        self._instances.clear()

    # -- afterwards -------------------------------------------------------------------------

    def level(self) -> tuple[int, int]:
        """Open descriptors and resident bytes."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        return len(list(Path("/proc/self/fd").iterdir())), resident

    def assert_level(self, before: tuple[int, int]) -> None:
        end = time.monotonic() + 60
        while True:  # a large store is given back by a thread
            descriptors, resident = self.level()
            back = resident <= before[1] + _KEPT_BYTES and descriptors <= before[0] + 4
            if back or time.monotonic() > end:
                break
            time.sleep(0.01)
        # The engine opens a few for itself with its first file call.
        assert descriptors <= before[0] + 4
        assert resident <= before[1] + _KEPT_BYTES

    def assert_neighbour(self) -> None:
        self.run(self._exchange())
        assert self._heard
        assert self._neighbour.state is State.CALLING

    def close(self) -> None:
        self.close_guests()
        self._neighbour.close()
        self.run(self.scheduler.__aexit__(None, None, None))


def _run_s() -> float:
    """A clock that stands still while this thread could run and has no core."""
    return time.monotonic() - waited_for_cpu_s(os.getpid())


async def _made(make: Callable[[], _T]) -> _T:
    return make()


@contextlib.contextmanager
def opened(cache: Path) -> Iterator[Arena]:
    with asyncio.Runner() as runner:
        arena = Arena(runner, cache)
        try:
            yield arena
        finally:
            arena.close()
