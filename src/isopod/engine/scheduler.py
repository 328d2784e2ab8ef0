"""Runs guests as fibers on the asyncio loop of one process.

A run queue of our own holds the guests that can run; each loop iteration polls one of them for
one slice, so that sockets are served between slices (waking 2,000 guests in one batch stalled
other requests for 3 s). A thread raises the engine's epoch every `TICK_S` while guests run: a
guest that computes is suspended at the next tick and goes to the back of the queue.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

import wasmtime

from isopod.engine.ffi import raw
from isopod.engine.instance import Instance, State

TICK_S = 0.002
# The ticker pauses when nothing has run for so long, so that an idle node is idle.
_IDLE_S = 0.05
# Host calls that are answered at once go on in the same slice, up to this long.
_SLICE_S = 0.002


class Ticker:
    """Raises the engine's epoch while guests run. `poke` keeps it going; it is called with every
    slice, so it is two loads when the ticker runs."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._last = 0.0
        self.busy = False  # a guest runs right now: its ticks must come, however long it takes
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="epoch-ticker", daemon=True)
        self._thread.start()

    def poke(self, now: float) -> None:
        self.busy = True
        self._last = now
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        pointer = self._engine.ptr()
        while not self._stopped:
            time.sleep(TICK_S)
            raw.wasmtime_engine_increment_epoch(pointer)
            if self._idle():
                self._wake.clear()
                # A slice that began between the check and the clear must not lose its ticks.
                if self._idle():
                    self._wake.wait()

    def _idle(self) -> bool:
        return not self.busy and time.monotonic() - self._last > _IDLE_S


class Scheduler:
    """Use as `async with Scheduler(engine) as scheduler`."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._ticker = Ticker(engine)
        self._queue: deque[Instance] = deque()
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.clear()
        self._ticker.stop()

    def wake(self, instance: Instance) -> None:
        """Run `instance` soon: it is new, or was given a reply. It goes before those that used up
        their slice: who computes must not delay who answers."""
        self._enqueue(instance, first=True)

    def _enqueue(self, instance: Instance, *, first: bool) -> None:
        if instance.queued or instance.state is not State.READY:
            return
        instance.queued = True
        if first:
            self._queue.appendleft(instance)
        else:
            self._queue.append(instance)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_one)

    def _run_one(self) -> None:
        self._scheduled = False
        if self._queue:
            instance = self._queue.popleft()
            instance.queued = False
            self._slice(instance)
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_one)

    def _slice(self, instance: Instance) -> None:
        started = time.monotonic()
        self._ticker.poke(started)
        try:
            while instance.state is State.READY:
                instance.poll()
                frame = instance.take_frame()
                if frame is not None:
                    instance.on_call(frame)
                if time.monotonic() - started > _SLICE_S:
                    break
        finally:
            self._ticker.busy = False
        if instance.state is State.READY:
            self._enqueue(instance, first=False)
        elif instance.state is State.SLEEPING and instance.wake_at is not None:
            delay = max(0.0, instance.wake_at - time.monotonic())
            self._loop.call_later(delay, self._end_sleep, instance)

    def _end_sleep(self, instance: Instance) -> None:
        instance.end_sleep()
        self.wake(instance)
