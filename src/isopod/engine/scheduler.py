"""Runs guests as fibers on the asyncio loop of one process.

A run queue of our own holds the guests that can run; each loop iteration polls one of them for
one slice, so that sockets are served between slices (waking 2,000 guests in one batch stalled
other requests for 3 s). The time is shared in equal parts between those whom the guests belong to,
however many guests each has, and so is each part between its apps; of an app's guests, those that
were woken go before those that used up their slice: who computes must not delay who answers (see
`run_queue`). A timer raises the engine's
epoch every `TICK_S` while guests run: a guest that computes is suspended at the next tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import wasmtime

from isopod.engine.folding import Folding
from isopod.engine.instance import Instance, State
from isopod.engine.run_queue import RunQueue
from isopod.engine.ticker import Ticker
from isopod.engine.written import WrittenPages

_T = TypeVar("_T")
# Host calls that are answered at once go on in the same slice, up to this long.
_SLICE_NS = 2_000_000


class Scheduler:
    """Use as `async with Scheduler(engine) as scheduler`."""

    def __init__(self, engine: wasmtime.Engine, *, written: WrittenPages | None = None) -> None:
        """`written`: None: instances keep what they wrote."""
        self._ticker = Ticker(engine)
        self._queue: RunQueue[Instance] = RunQueue()
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._closed = False
        self._folding = Folding(written, busy=lambda: bool(self._queue))
        # CPU of all instances that ever ran: in their slices (their `cpu_ns`); and of ours in
        # their turns beside that.
        self.guest_ns = 0
        self.host_ns = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.clear()
        self._closed = True
        self._folding.close()
        self._ticker.close()

    def wake(self, instance: Instance) -> None:
        """Run `instance` soon: it is new, or was given a reply."""
        self._enqueue(instance, computes=False)

    def _enqueue(self, instance: Instance, *, computes: bool) -> None:
        if instance.queued or instance.state is not State.READY:
            return
        instance.queued = True
        self._queue.push(instance, instance.spec.share, computes=computes)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_one)

    def _run_one(self) -> None:
        self._scheduled = False
        if self._closed:
            return  # without ticks a guest could not be stopped, and their timer is gone
        began_ns = time.monotonic_ns()
        spent_ns = 0
        try:
            instance = self._queue.pop()
            if instance is not None:
                instance.queued = False
                before = instance.cpu_ns, instance.polled_ns
                try:
                    self._slice(instance, began_ns)
                finally:
                    spent_ns = self._account(instance, began_ns, *before)
        finally:
            # Host work for the guest is in it too: who floods its log pays for the splitting.
            self._queue.charge(spent_ns / 1e9)
            # Also after an error of ours: the others must go on.
            if self._queue and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._run_one)

    def _account(self, instance: Instance, began_ns: int, cpu_ns: int, polled_ns: int) -> int:
        """CPU of a turn: of the guest by the thread's clock, of ours by the wall clock, because
        nothing of ours waits and another look at the thread's clock costs a system call."""
        guest_ns = instance.cpu_ns - cpu_ns
        host_ns = time.monotonic_ns() - began_ns - (instance.polled_ns - polled_ns)
        instance.host_ns += host_ns
        self.guest_ns += guest_ns
        self.host_ns += host_ns
        return guest_ns + host_ns

    def _slice(self, instance: Instance, began_ns: int) -> None:
        self._ticker.arm()
        try:
            self._run(instance, began_ns)
        finally:
            self._ticker.disarm()
        instance.computes = instance.state is State.READY
        if instance.computes:
            self._enqueue(instance, computes=True)
        elif instance.state is State.ENDED:
            self._folding.rests(instance)
        elif instance.state is State.SLEEPING and instance.wake_at is not None:
            delay = max(0.0, instance.wake_at - time.monotonic())
            instance.sleep_timer = self._loop.call_later(delay, self._end_sleep, instance)

    def _run(self, instance: Instance, began_ns: int) -> None:
        """The guest's CPU is what the thread used, less what its calls took of us."""
        ours_ns = 0
        entered_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        try:
            while instance.state is State.READY:
                instance.poll()
                left_ns = now_ns = time.monotonic_ns()
                frame = instance.take_frame()
                if frame is not None:
                    try:
                        instance.on_call(frame)
                    finally:
                        now_ns = time.monotonic_ns()
                        ours_ns += now_ns - left_ns
                if now_ns - began_ns > _SLICE_NS:
                    break
        finally:
            instance.cpu_ns += max(0, time.thread_time_ns() - cpu_ns - ours_ns)
            instance.polled_ns += time.monotonic_ns() - entered_ns - ours_ns

    def _end_sleep(self, instance: Instance) -> None:
        instance.sleep_timer = None
        instance.end_sleep()
        self.wake(instance)


def in_scheduler(
    engine: wasmtime.Engine, use: Callable[[Scheduler], Awaitable[_T]], deadline_s: float = 600.0
) -> _T:
    """Run a coroutine with a scheduler of its own, for processes that have no loop."""

    async def main() -> _T:
        async with Scheduler(engine) as scheduler:
            return await asyncio.wait_for(use(scheduler), deadline_s)

    return asyncio.run(main())
