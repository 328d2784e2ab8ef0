"""The instances of one app version in one worker, and the requests that wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from isopod.errors import (
    AppStarting,
    DeadlineExceeded,
    EngineError,
    IsopodError,
    NodeBusy,
    NodeDraining,
    Overloaded,
    QuotaExceeded,
)
from isopod.gateway.pool import PoolView, should_start
from isopod.gateway.slot import Slot
from isopod.gateway.turns import Turns
from isopod.model.route import Route

_log = logging.getLogger(__name__)
BOOT_DEADLINE_S = 60.0
# After a boot that failed, the same answer for so long: a broken app must not boot all day.
FAILED_BOOT_S = 1.0
_KEPT_STARTS = 200
# Without room for an instance a request waits so long for some: the busy ones of other apps are
# done in milliseconds, as a rule, and another worker looks four times a second whether it has to
# end an idle one of the tenant.
_ROOM_PATIENCE_S = 1.5
_LOOK_AGAIN_S = 0.02


@dataclass(eq=False, slots=True)
class Waiter:
    future: asyncio.Future[Slot]
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Acquired:
    """A slot, and where the time until it was had went."""

    slot: Slot
    queue_ms: float
    start_ms: float


class AppPool:
    """`new_slot` makes a slot within the node's budget, or raises NodeBusy. `turns`: a restore
    waits for one of them; all pools of a worker share them."""

    def __init__(self, route: Route, new_slot: Callable[[Route], Slot], turns: Turns) -> None:
        self._all_turns = turns
        self.follow(route)
        self.idle: list[Slot] = []  # the last used is at the end, and goes first
        self.busy: set[Slot] = set()
        self.starting: set[Slot] = set()
        self._shares = False  # its instances have many requests at once
        self.cold_starts = 0
        self.requests = 0
        self.errors = 0
        self.retired = False
        self.closed = False
        self._new_slot = new_slot
        self._waiters: deque[Waiter] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._boot_failed: tuple[float, IsopodError] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.starts_ms: deque[float] = deque(maxlen=_KEPT_STARTS)
        self._moved_at = 0.0  # when a waiting request was last given an instance

    def follow(self, route: Route) -> None:
        """The same version, it may have a new snapshot: the next instance starts from that."""
        self.route = route
        # A plain boot takes no turn: it may last a minute, and yields at every tick.
        restored = route.snapshot is not None and bool(route.snapshot.image)
        self._turns = self._all_turns if restored else None

    @property
    def queued(self) -> int:
        return len(self._waiters)

    @property
    def slots(self) -> list[Slot]:
        return [*self.starting, *self.busy, *self.idle]

    async def acquire(self, request_id: str) -> Acquired:
        """An instance for one request. Raises Overloaded (queue full, or waited as long as a
        request may take; AppStarting when there has been none yet), NodeBusy, or the error of a
        boot that failed."""
        self.requests += 1
        free = self._find_room()
        if free is not None:
            self._give(free)
            free.begin(request_id)
            self._keep_spare()
            return Acquired(free, 0.0, 0.0)
        if self.closed:
            raise NodeDraining("this worker is shutting down")
        if self._boot_failed is not None:
            at, error = self._boot_failed
            if time.monotonic() - at < FAILED_BOOT_S:
                raise error.again()
            self._boot_failed = None
        scaling = self.route.spec.scaling
        if len(self._waiters) >= scaling.queue:
            raise Overloaded(f"{len(self._waiters)} requests wait for app {self.route.name!r}")
        waiter = Waiter(asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        slot = await self._wait(waiter)
        waited_ms = (time.monotonic() - waiter.since) * 1e3
        # Its first request: what it waited for was this boot, as far as it lasted.
        start_ms = min(waited_ms, slot.boot_s * 1e3) if slot.requests == 0 else 0.0
        slot.begin(request_id)
        self._keep_spare()
        return Acquired(slot, waited_ms - start_ms, start_ms)

    def release(self, slot: Slot, *, reusable: bool) -> None:
        """Give an instance back after its request."""
        slot.in_flight -= 1
        if not reusable or self.route.spec.isolation.mode != "app" or slot.wanted:
            slot.draining = True
        if slot.in_flight == 0:
            self.busy.discard(slot)
            if slot.guest.idle and not slot.draining and (self._waiters or not self.retired):
                slot.end()
                self._offer(slot)
            else:
                slot.close()
        elif slot.has_room:
            self._offer(slot)
        self.consider()

    def consider(self) -> None:
        """Start an instance if the plan says so. Called whenever something changed."""
        if not self._waiters or self.closed:
            return
        while self._waiters and (free := self._find_room()) is not None:
            self._offer(free)
        if not self._waiters:
            return
        view = PoolView(
            waiting=len(self._waiters),
            stalled_s=time.monotonic() - max(self._moved_at, self._waiters[0].since),
            starting=len(self.starting),
            live=len(self.starting) + len(self.busy) + len(self.idle),
            runnable=sum(not slot.waiting for slot in self.busy),
            computed_s=max((slot.request_cpu_ns for slot in self.busy), default=0) / 1e9,
            max_instances=self.route.spec.scaling.max_instances,
        )
        if should_start(view):
            self._start_one()
        elif self._patience is None and view.starting == 0 and view.live < view.max_instances:
            # Guests that compute may soon wait, and patience ends: look again.
            self._patience = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look_again)

    def retire(self) -> None:
        """Another version is live: idle instances end now, the others when nobody waits for this
        version any more. Who has been waiting is still served by it."""
        self.retired = True
        for slot in self.idle:
            slot.close()
        self.idle.clear()

    def sleep(self) -> int:
        """End the idle instances now; how many there were."""
        ended, self.idle = self.idle, []
        for slot in ended:
            slot.close()
        return len(ended)

    def end_expired(self) -> None:
        """End the instances that have been idle for too long; the oldest is first in the list."""
        keep_s = self.route.spec.scaling.idle_s
        while self.idle and self.idle[0].idle_s >= keep_s:
            self.idle.pop(0).close()

    def end(self, slot: Slot) -> None:
        """End one idle instance."""
        if slot in self.idle:
            self.idle.remove(slot)
            slot.close()

    async def close(self) -> None:
        """End everything: the worker stops."""
        self.retired = self.closed = True
        self._fail_waiters(NodeDraining("this worker is shutting down"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for slot in self.slots:
            slot.close()
        self.idle.clear()
        self.busy.clear()

    # ---------------------------------------------------------------------------------------

    def _find_room(self) -> Slot | None:
        """An instance that can take a request now: of those that have some already and do not
        compute, the one with fewest; else an idle one, or one that computes."""
        shared = [slot for slot in self.busy if slot.has_room] if self._shares else []
        waiting = [slot for slot in shared if slot.waiting]
        if waiting:
            return min(waiting, key=_load)
        for slot in reversed(self.idle):
            if not slot.guest.idle:
                self.end(slot)  # ended by what its last request left behind
            elif not slot.guest.blocked:
                return slot
        return min(shared, key=_load, default=None)

    def _give(self, slot: Slot) -> None:
        """Now: nothing else may take its room before the request wakes."""
        if slot.in_flight == 0 and slot in self.idle:
            self.idle.remove(slot)
        slot.in_flight += 1
        self.busy.add(slot)

    async def _wait(self, waiter: Waiter) -> Slot:
        deadline_s = self.route.spec.limits.deadline_ms / 1e3
        try:
            self.consider()
            async with asyncio.timeout(deadline_s):
                return await waiter.future
        except BaseException as error:
            given = waiter.future
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif given.done() and not given.cancelled() and given.exception() is None:
                # Given an instance in the very moment it gave up: pass it on.
                slot = given.result()
                slot.in_flight -= 1
                if slot.in_flight == 0:
                    self.busy.discard(slot)
                self._offer(slot)
            if isinstance(error, TimeoutError):
                if self.starting and not (self.busy or self.idle):
                    raise AppStarting(
                        f"the first instance of app {self.route.name!r} was not ready within"
                        f" {deadline_s:g} s"
                    ) from None
                raise Overloaded(
                    f"no instance of app {self.route.name!r} was free within {deadline_s:g} s"
                ) from None
            raise

    def _offer(self, slot: Slot) -> None:
        """To those that wait, or to the idle ones."""
        while self._waiters and (slot.in_flight == 0 or slot.has_room):
            waiter = self._waiters.popleft()
            if not waiter.future.done():
                self._give(slot)
                waiter.future.set_result(slot)
                self._moved_at = time.monotonic()
        if slot.in_flight or slot in self.idle:
            return
        if self.retired:
            slot.close()
        else:
            self.idle.append(slot)

    def _keep_spare(self) -> None:
        """With an instance per request, have the next one ready while this one serves."""
        if (
            self.route.spec.isolation.mode == "request"
            and not (self.idle or self.starting or self.retired or self.closed)
            and len(self.busy) < self.route.spec.scaling.max_instances
        ):
            self._start_one()

    def _look_again(self) -> None:
        self._patience = None
        self.consider()

    def _start_one(self) -> None:
        try:
            slot = self._new_slot(self.route)
        except IsopodError as error:
            self._no_slot(error)
            return
        self.starting.add(slot)
        self.cold_starts += 1
        task = asyncio.get_running_loop().create_task(self._boot(slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _no_slot(self, error: IsopodError) -> None:
        no_room = isinstance(error, (NodeBusy, QuotaExceeded))
        # Without memory for one more, those who wait may still be served by the ones there are.
        if no_room and (self.busy or self.starting):
            return
        waited_s = time.monotonic() - self._waiters[0].since if self._waiters else 0.0
        if no_room and waited_s < _ROOM_PATIENCE_S:
            if self._patience is None:
                loop = asyncio.get_running_loop()
                self._patience = loop.call_later(5 * _LOOK_AGAIN_S, self._look_again)
            return
        self._fail_waiters(error)

    async def _boot(self, slot: Slot) -> None:
        try:
            await slot.claim()  # without a turn: others must not wait for this
            turn = self._turns.take(self.route.tenant) if self._turns else contextlib.nullcontext()
            async with turn, asyncio.timeout(BOOT_DEADLINE_S):
                await slot.start()
        except TimeoutError:
            error = DeadlineExceeded(
                f"app {self.route.name!r} did not start within {BOOT_DEADLINE_S:.0f} s",
                hint="do less at import",
            )
            slot.report(error)
            self._boot_ended(slot, error)
        except IsopodError as error:
            self._boot_ended(slot, error)
        except Exception:
            # A file that cannot be opened, a folder that cannot be made: nobody above would know.
            _log.exception("an instance of app %r could not be started", self.route.name)
            self._boot_ended(slot, EngineError("the node could not start an instance"))
        except BaseException:
            self._boot_ended(slot, None)
            raise
        else:
            self.starting.discard(slot)
            self.starts_ms.append(slot.boot_s * 1e3)
            self._shares = slot.capacity > 1
            self._offer_started(slot)

    def _boot_ended(self, slot: Slot, error: IsopodError | None) -> None:
        self.starting.discard(slot)
        slot.close()
        if error is not None:
            self._boot_failed = (time.monotonic(), error)
            self._fail_waiters(error)

    def _offer_started(self, slot: Slot) -> None:
        self._offer(slot)
        self.consider()

    def _fail_waiters(self, error: IsopodError) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_exception(error.again())


def _load(slot: Slot) -> int:
    return slot.in_flight
