"""All instances of one worker: its pools by app, its memory budget, the end of idle instances."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from isopod.errors import NodeBusy
from isopod.gateway.app_pool import AppPool
from isopod.gateway.logs import AppLog
from isopod.gateway.quota import Quotas
from isopod.gateway.room import Held, Need, to_end
from isopod.gateway.rounds import go_round
from isopod.gateway.slot import MakeGuest, Slot, expected_bytes
from isopod.gateway.turns import Turns
from isopod.gateway.volumes import HeldVolumes
from isopod.metering.meter import Record
from isopod.model.ids import Digest
from isopod.model.route import Route

_REAP_EVERY_S = 0.25
# A thousand apps that wake at once: without turns, whoever asks a warm app meanwhile waits for a
# part of every one of them (0.8 s); one by one, for the image that is verified (0.1 s).
_RESTORES_AT_ONCE = 8
# To find the least recently used of thousands takes milliseconds: not for each start.
_ENDED_AT_ONCE = 16
# Guests may grow past the budget while they serve. Beyond so much of it requests are ended, those
# of tenants above their part first: the rest of the machine's memory is not ours.
_LAST_RESORT = 1.25
# An instance's memory is given back by a thread, which a busy machine may not run for so long.
_GIVEN_BACK_S = 2.0
# A guest that grows while it serves is billed for that from the next look on.
_LOOK_EVERY_S = 1.0
# What a killed worker's idle instances held since they were last recorded is lost; thousands of
# them must not write thousands of records a second.
RECORD_LIVE_EVERY_S = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Fleet:
    def __init__(
        self,
        *,
        make: MakeGuest,
        logs_dir: Path,
        log_bytes: int,
        budget_bytes: int,
        max_instances: int,
        quotas: Quotas,
        meter: Record,
        volumes: HeldVolumes,
        held_bytes: Callable[[str], int],
    ) -> None:
        """`log_bytes`: what the log of one app may take. `max_instances`: what the process's open
        files allow. `held_bytes`: what a tenant has in memory beside its instances."""
        self._make = make
        self._meter = meter
        self._volumes = volumes
        self._held_bytes = held_bytes
        # Apps with open WebSockets: one without an instance still wakes here, with its volumes.
        self.sockets: Counter[str] = Counter()
        self._looked_at = self._recorded_at = time.monotonic()
        self._quotas = quotas
        self._max_instances = max_instances
        self._live = 0  # not less than there are; counted with each reap
        self._logs_dir = logs_dir
        self._log_bytes = log_bytes // 2  # of each of its two files
        self._budget = budget_bytes
        self._pools: dict[str, AppPool] = {}
        self._retired: list[AppPool] = []
        self._logs: dict[str, AppLog] = {}
        self._turns = Turns(_RESTORES_AT_ONCE)
        self._used_bytes = 0
        self._limited_before: set[str] = set()  # tenants with a quota and instances
        self._anonymous_before = _anonymous_bytes()
        self._ended_bytes = 0  # of those that a reap ended, if they may not have given it back yet
        self._ended_at = 0.0
        self._reaper = asyncio.get_running_loop().create_task(self._reap())

    def set_budget(self, budget_bytes: int) -> None:
        """What the instances may take from now on: other workers came or went."""
        self._budget = budget_bytes

    def pool(self, route: Route) -> AppPool:
        """The pool of an app's live version; the pool of the version before it retires."""
        pool = self._pools.get(route.name)
        if pool is None or not pool.route.serves_as(route):
            if pool is not None:
                self._retire(pool)
            pool = self._pools[route.name] = AppPool(route, self._new_slot, self._turns)
        elif pool.route is not route:
            pool.follow(route)
        return pool

    def forget(self, live: dict[str, Route | None]) -> None:
        """Retire pools whose route is gone, newer, or has other secrets. `live` holds the names we
        asked about."""
        for name, route in live.items():
            pool = self._pools.get(name)
            if pool is not None and (route is None or not pool.route.serves_as(route)):
                self._retire(self._pools.pop(name))
            elif pool is not None and route is not None:
                pool.follow(route)

    def log(self, route: Route) -> AppLog:
        rate = route.spec.limits.log_kib_per_s
        log = self._logs.get(route.name)
        if log is None:
            log = self._logs[route.name] = AppLog(
                self._logs_dir, route.name, kib_per_s=rate, max_bytes=self._log_bytes
            )
        log.limit(rate)
        return log

    @property
    def names(self) -> list[str]:
        return list(self._pools)

    def images(self) -> set[Digest]:
        """Of the versions that instances may be started of."""
        snapshots = (pool.route.snapshot for pool in self._all())
        return {snapshot.image for snapshot in snapshots if snapshot is not None}

    def sleep(self, app: str) -> int:
        """End an app's idle instances now."""
        return sum(pool.sleep() for pool in self._all() if pool.route.name == app)

    def memory_bytes(self) -> int:
        """What the instances cost: their private memory, estimated."""
        return sum(slot.private_bytes for pool in self._all() for slot in pool.slots)

    def status(self) -> dict[str, Any]:
        """For control: the instances and the counters of every app."""
        instances = [
            {
                "id": slot.id,
                "app": pool.route.name,
                "version": pool.route.version,
                "state": state,
                "memory_bytes": slot.memory_bytes,
                "private_bytes": slot.private_bytes,
                "requests": slot.requests,
                "idle_s": round(slot.idle_s, 3) if state == "idle" else 0.0,
                "age_s": round(time.monotonic() - slot.made_at, 3),
                "start_ms": round(slot.boot_s * 1e3, 2),
                "cpu_ms": round(slot.cpu_ns / 1e6, 3),
            }
            for pool in self._all()
            for slots, state in (
                (pool.starting, "starting"),
                (pool.busy, "busy"),
                (pool.idle, "idle"),
            )
            for slot in slots
        ]
        apps = {
            name: {
                "queued": pool.queued,
                "requests": pool.requests,
                "cold_starts": pool.cold_starts,
                "starts_ms": [round(start, 2) for start in pool.starts_ms],
                "errors": pool.errors,
            }
            for name, pool in self._pools.items()
        }
        return {"instances": instances, "apps": apps, "memory_bytes": self.memory_bytes()}

    async def close(self) -> None:
        self._reaper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reaper
        for pool in self._all():
            await pool.close()
        for log in self._logs.values():
            log.close()

    # ---------------------------------------------------------------------------------------

    def _written_bytes(self) -> int:
        """All memory that this process has written since it began to serve: what estimates of
        shared pages miss, this does not."""
        return max(0, _anonymous_bytes() - self._anonymous_before)

    def _counted_bytes(self) -> int:
        """What a reap holds against the budget: without the memory of those that one has just
        ended, for which no others shall end. Only ever for a while: who grows again and again
        does not hide behind it."""
        if time.monotonic() - self._ended_at >= _GIVEN_BACK_S:
            self._ended_bytes = 0
        return max(self.memory_bytes(), self._written_bytes() - self._ended_bytes)

    def _all(self) -> list[AppPool]:
        return [*self._pools.values(), *self._retired]

    def _retire(self, pool: AppPool) -> None:
        pool.retire()
        self._retired.append(pool)

    @contextlib.contextmanager
    def command_slot(self, route: Route, make: MakeGuest) -> Iterator[Slot]:
        """For a command, counted with all others until it is given back. Raises NodeBusy and
        QuotaExceeded."""
        route = replace(route, snapshot=None)
        self._count_in(route)
        slot = Slot(
            route,
            self.log(route),
            make,
            meter=self._meter,
            volumes=self._volumes,
            runs_command=True,
        )
        # Of no pool that serves: no request is given to it.
        pool = AppPool(route, self._new_slot, self._turns)
        pool.retire()
        pool.busy.add(slot)
        self._retired.append(pool)
        try:
            yield slot
        finally:
            pool.busy.discard(slot)
            slot.close()

    def _new_slot(self, route: Route) -> Slot:
        self._count_in(route)
        log = self.log(route)
        return Slot(route, log, self._make, meter=self._meter, volumes=self._volumes)

    def _count_in(self, route: Route) -> None:
        """Room for one more. Raises NodeBusy and QuotaExceeded."""
        # The sum is taken anew with each reap only: thousands of instances may be live.
        need = expected_bytes(route)
        self._within_quota(route.tenant, need)
        if self._used_bytes + need > self._budget:
            self._make_room(Need(route.tenant, need))
            self._used_bytes = self.memory_bytes()
        self._used_bytes += need
        if self._live >= self._max_instances:
            self._make_place(route.tenant)
        self._live += 1

    def _make_place(self, tenant: str) -> None:
        """End some instances so that there are files for another. Raises NodeBusy."""
        self._live = self._count()
        if self._live < self._max_instances:
            return
        held = [Held(one.id, one.tenant, one.idle_s, 1) for one in self._held()]
        for count in (max(1, min(_ENDED_AT_ONCE, self._max_instances // 8)), 1):
            chosen = to_end(
                held,
                Need(tenant, count),
                used=self._live,
                room=self._max_instances,
                may_end_busy=count == 1,
            )
            if chosen is not None:
                self._end(chosen)
                self._live -= len(chosen)
                return
        raise NodeBusy("the node's open files are used up by busy instances")

    def _count(self) -> int:
        return sum(len(pool.slots) for pool in self._all())

    def _make_room(self, need: Need) -> int:
        """End instances until `need` fits in the budget; gives what they had. Raises NodeBusy when
        they cannot."""
        used = self._counted_bytes()
        held = self._held()
        chosen = to_end(held, need, used=used, room=self._budget, may_end_busy=bool(need.tenant))
        if chosen is None:
            raise NodeBusy("the node's memory budget is used up by busy instances")
        self._end(chosen)
        ended = set(chosen)
        return sum(one.size for one in held if one.id in ended)

    def _held(self) -> list[Held]:
        return [
            Held(slot.id, pool.route.tenant, idle_s, slot.private_bytes)
            for pool in self._all()
            for slots, idle in ((pool.idle, True), (pool.busy, False))
            for slot in slots
            for idle_s in (slot.idle_s if idle else None,)
        ]

    def _end(self, chosen: list[str]) -> None:
        wanted = set(chosen)
        for pool in self._all() if wanted else ():
            for slot in [slot for slot in pool.idle if slot.id in wanted]:
                pool.end(slot)
            for slot in [slot for slot in pool.busy if slot.id in wanted]:
                slot.stop(
                    NodeBusy(
                        "the node's memory is used up, and this tenant uses more than its part"
                    )
                )

    def _end_for_growth(self) -> None:
        """Idle instances end down to the budget, and busy ones down to what is beyond bearing."""
        with contextlib.suppress(NodeBusy):
            ended = self._make_room(Need())
            if ended and not self._ended_bytes:
                self._ended_at = time.monotonic()
            self._ended_bytes += ended
        chosen = to_end(
            self._held(),
            Need(),
            used=self._counted_bytes(),
            room=int(self._budget * _LAST_RESORT),
            may_end_busy=True,
        )
        self._end(chosen or [])

    # -- a tenant's quota -------------------------------------------------------------------

    def _within_quota(self, tenant: str, need_bytes: int) -> None:
        """Raises QuotaExceeded when no idle instance of the tenant's can end instead."""
        if not self._quotas.limited(tenant):
            return
        instances, memory = self._count_live(tenant)
        while (error := self._quotas.over_live(tenant, need_bytes)) is not None:
            if not self._end_one_idle(tenant):
                self._quotas.want_room(tenant)  # of the other workers; who waits tries again
                raise error
            instances, memory = self._count_live(tenant)
        self._quotas.set_live(tenant, instances=instances + 1, memory_bytes=memory + need_bytes)

    def _count_live(self, tenant: str) -> tuple[int, int]:
        slots = [slot for pool in self._of(tenant) for slot in pool.slots]
        memory = sum(slot.private_bytes for slot in slots) + self._held_bytes(tenant)
        self._quotas.set_live(tenant, instances=len(slots), memory_bytes=memory)
        return len(slots), memory

    def _end_one_idle(self, tenant: str) -> bool:
        """The least recently used."""
        idle = [(slot.idle_s, pool, slot) for pool in self._of(tenant) for slot in pool.idle]
        if not idle:
            return False
        _, pool, slot = max(idle, key=lambda one: one[0])
        pool.end(slot)
        return True

    def _of(self, tenant: str) -> list[AppPool]:
        return [pool for pool in self._all() if pool.route.tenant == tenant]

    def _look_after_quotas(self) -> None:
        """What guests used since the last look, and room that other workers asked for."""
        for tenant in {pool.route.tenant for pool in self._all()} | self._limited_before:
            if not self._quotas.limited(tenant):
                continue
            self._limited_before.add(tenant)
            cpu_ns = sum(
                slot.uncounted_cpu_ns() for pool in self._of(tenant) for slot in pool.slots
            )
            self._quotas.count(tenant, cpu_ns=cpu_ns, egress_bytes=0)
            wanted = self._quotas.room_wanted(tenant)
            instances, _ = self._count_live(tenant)
            if wanted or self._quotas.grown(tenant):
                self._end_one_idle(tenant)
            if not instances:
                self._limited_before.discard(tenant)

    def _look_at_memory(self, now: float) -> None:
        """Of every instance, for the meter."""
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        record = now - self._recorded_at >= RECORD_LIVE_EVERY_S
        if record:
            self._recorded_at = now
        now_ns = time.monotonic_ns()
        for pool in self._all():
            for slot in pool.slots:
                slot.look(now_ns)
                if record:
                    slot.record_live()

    async def _reap(self) -> None:
        failed = "idle instances could not be ended"
        await go_round(self.reap, every_s=lambda: _REAP_EVERY_S, failed=failed)

    def reap(self) -> None:
        """End what was idle for too long or does not fit, and close what belonged to it."""
        for pool in self._all():
            pool.end_expired()
            if pool.idle and self._volumes.wanted(pool.route):
                pool.sleep()
        in_use = {pool.route.name for pool in self._all() if pool.slots or pool.queued}
        self._volumes.tidy(in_use | set(self.sockets))
        self._look_at_memory(time.monotonic())
        # Guests may have grown since they were let in.
        self._used_bytes = self._counted_bytes()
        self._live = self._count()
        if self._used_bytes > self._budget:
            self._end_for_growth()
        self._look_after_quotas()
        self._retired = [pool for pool in self._retired if pool.slots or pool.queued]
        for log in self._logs.values():
            log.tell_dropped()
        # A thousand sleeping apps must not hold a thousand open files.
        awake = {pool.route.name for pool in self._all() if pool.slots}
        for name in [name for name in self._logs if name not in awake]:
            self._logs.pop(name).close()


def _anonymous_bytes() -> int:
    """Resident memory of this process that no file backs: /proc/self/statm, in pages."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * _PAGE
