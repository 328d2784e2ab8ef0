"""A child process that is kept running: started, awaited, started again when it dies.

A child says that it is ready by writing "ready" to the pipe it inherits (ISOPOD_READY_FD), or
why it cannot be, as {"error": ...}. Children are in sessions of their own, so that Ctrl-C in the
terminal reaches the supervisor alone, which stops them in order; they die with it
(see control.child). One that is watched goes on writing to that pipe, a byte every `BEAT_S`
(see server.watchdog), and is killed when its loop stalls; closing the pipe ends the watch.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from isopod.control.child import child_argv, how_it_ended
from isopod.errors import IsopodError
from isopod.server.watchdog import LOOK_S, Watch, waited_for_cpu_s

READY_FD = "ISOPOD_READY_FD"
# A worker's end of its channel to the broker of connections, and what the broker gets its ends by.
EGRESS_FD, CHANNELS_FD = "ISOPOD_EGRESS_FD", "ISOPOD_CHANNELS_FD"
# A worker's end of its pair with the supervisor, for lines to other workers.
LINES_FD = "ISOPOD_LINES_FD"
# What a worker accepts connections on; a tenant's own accepts none, and is told whose it is.
GATEWAY_FD, TENANT = "ISOPOD_GATEWAY_FD", "ISOPOD_WORKER_TENANT"
_QUICK_S = 10.0  # a child that lived shorter died quickly
_MAX_LINE_BYTES = 2**20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True)
class ChildSpec:
    """What to run. `name` is for people ("worker 0"); `handed` is what it reads on its standard
    input; `stall_s` is for how long its loop may stand still, 0 when it is not watched."""

    name: str
    module: str
    env: Mapping[str, str]
    fds: tuple[int, ...] = ()
    handed: bytes = b""
    stall_s: float = 0.0


def pause_before_restart(quick_deaths: int) -> float:
    """Seconds: none after the first quick death, then doubling up to a bound."""
    if quick_deaths <= 1:
        return 0.0
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(quick_deaths - 2, 16))


class Child:
    """One process after another that run the same thing."""

    def __init__(
        self, spec: ChildSpec, *, report: Callable[[str], None], ready_s: float = 60.0
    ) -> None:
        self._spec = spec
        self._report = report
        self._ready_s = ready_s
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Returns when the child is ready; from then on it is kept. Raises what it reported."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self._spec.name}")

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM, then SIGKILL after `grace_s`. False when it had to be killed."""
        self._stopping = True
        for task in (self._keeper, self._watcher):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        process = self._process
        if process is None or process.returncode is not None:
            return True
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            self.kill()
            await process.wait()
            return False
        return True

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        quick = 0
        while True:
            assert self._process is not None
            status = await self._process.wait()
            lived = time.monotonic() - self._began
            quick = quick + 1 if lived < _QUICK_S else 0
            pause = pause_before_restart(quick)
            then = f"starting it again in {pause:.1f} s" if pause else "starting it again"
            self._report(f"{self._spec.name} (pid {self.pid}) {how_it_ended(status)}; {then}")
            await asyncio.sleep(pause)
            try:
                await self._spawn()
            except (IsopodError, OSError) as bad:  # OSError: no process to be had right now
                self._report(f"{self._spec.name}: {bad}")
            else:
                self._report(f"{self._spec.name} is ready again (pid {self.pid})")

    async def _spawn(self) -> None:
        reading, writing = os.pipe()
        try:
            self._began = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *child_argv(self._spec.module),
                env={**self._spec.env, READY_FD: str(writing)},
                pass_fds=(writing, *self._spec.fds),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        if self._watcher is not None:
            self._watcher.cancel()  # the last process's
        pipe = await _Pipe.open(reading)
        try:
            async with asyncio.timeout(self._ready_s):
                await self._hand_over()
                line = await pipe.line()
            if line.strip() != b"ready":
                status = await self._end()
                raise _reported(line) or IsopodError(
                    f"{self._spec.name} {how_it_ended(status)} before it was ready",
                    hint="its messages are above",
                )
        except TimeoutError:
            pipe.close()
            await self._end(grace_s=0.0)
            raise IsopodError(
                f"{self._spec.name} was not ready within {self._ready_s:g} s"
            ) from None
        except BaseException:
            pipe.close()
            raise
        if self._spec.stall_s:
            watching = self._watch(pipe, self._process)
            self._watcher = asyncio.create_task(watching, name=f"watch {self._spec.name}")
        else:
            pipe.close()

    async def _hand_over(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(ConnectionError):  # it died first: its exit says so
            self._process.stdin.write(self._spec.handed)
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def _watch(self, pipe: _Pipe, process: asyncio.subprocess.Process) -> None:
        """Until it ends, or its loop stalls: then it is killed, and so started again."""
        clock = asyncio.get_running_loop().time
        watch = Watch(self._spec.stall_s, clock(), waited_for_cpu_s(process.pid))
        try:
            while process.returncode is None and not pipe.closed:
                await asyncio.sleep(LOOK_S)
                waited_s = waited_for_cpu_s(process.pid)
                if watch.look(clock(), beaten=pipe.has_beaten(), waited_s=waited_s):
                    self._report(
                        f"{self._spec.name} (pid {process.pid}) has stood still for "
                        f"{watch.silent_s:.1f} s: it is replaced"
                    )
                    with suppress(ProcessLookupError):
                        process.kill()  # a loop that stands still hears no SIGTERM
                    return
        finally:
            pipe.close()

    async def _end(self, *, grace_s: float = 5.0) -> int:
        assert self._process is not None
        # It said what is wrong, or its pipe closed: it is ending. Do not wait for ever.
        try:
            return await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()


class _Pipe(asyncio.Protocol):
    """The ready pipe's reading end: a line, and beats after it."""

    @classmethod
    async def open(cls, fd: int) -> _Pipe:
        file = os.fdopen(fd, "rb", buffering=0)
        _, pipe = await asyncio.get_running_loop().connect_read_pipe(cls, file)
        return pipe

    def __init__(self) -> None:
        self._head = bytearray()
        self._line: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._beats = False
        self._transport: asyncio.BaseTransport | None = None
        self.closed = False  # by the child

    async def line(self) -> bytes:
        """The first line, or what there is of it at the pipe's end."""
        return await self._line

    def has_beaten(self) -> bool:
        """Since the last call."""
        beats, self._beats = self._beats, False
        return beats

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._beats = True
        if not self._line.done():
            self._head += data
            if b"\n" in self._head or len(self._head) > _MAX_LINE_BYTES:
                self._line.set_result(bytes(self._head.partition(b"\n")[0]))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True
        if not self._line.done():
            self._line.set_result(bytes(self._head))


def _reported(line: bytes) -> IsopodError | None:
    try:
        return IsopodError.from_wire(json.loads(line)["error"])
    except (ValueError, KeyError, TypeError):
        return None


def tell_ready(fd: int, error: IsopodError | None = None) -> None:
    """The child's side: "ready", or why not."""
    line = b"ready\n" if error is None else json.dumps({"error": error.to_wire()}).encode() + b"\n"
    with suppress(OSError):  # nobody waits any more
        os.write(fd, line)
    with suppress(OSError):
        os.close(fd)
