"""Quotas: what a tenant may use of this node, as a worker enforces it.

Tenants and their quotas come from routes.db. A rate is refused with 429, an amount with 403; the
amounts of a day are the worker's own count, since it must act at once, or the ledger's where that
says more (control tells it; the ledger also knows of days before a restart). A tenant without a
quota costs a look-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import IsopodError, QuotaExceeded, TenantSuspended, TooManyRequests
from isopod.gateway import tenant_use
from isopod.gateway.buckets import TokenBucket
from isopod.gateway.tenant_use import TenantUse
from isopod.model.tenant import Quota, Tenant, TenantName

_DAY_S = 86_400
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Today:
    """Used since midnight, UTC."""

    day: int  # since the epoch
    cpu_ns: int = 0
    egress_bytes: int = 0


def over_today(tenant: str, quota: Quota, cpu_ns: int, egress_bytes: int) -> QuotaExceeded | None:
    """The error if an amount of the day is used up."""
    cpu_s, egress_mib = cpu_ns // 1_000_000_000, egress_bytes // _MIB
    if quota.cpu_s_per_day and cpu_s >= quota.cpu_s_per_day:
        return _exceeded(tenant, "cpu_s_per_day", quota.cpu_s_per_day, cpu_s, "s of CPU today")
    if quota.egress_mib_per_day and egress_mib >= quota.egress_mib_per_day:
        limit = quota.egress_mib_per_day
        return _exceeded(tenant, "egress_mib_per_day", limit, egress_mib, "MiB of egress today")
    return None


def over_live(
    tenant: str, quota: Quota, instances: int, memory_bytes: int, need_bytes: int
) -> QuotaExceeded | None:
    """The error if one more instance, of `need_bytes`, is more than the tenant may have live."""
    if quota.max_instances and instances >= quota.max_instances:
        return _exceeded(tenant, "max_instances", quota.max_instances, instances, "live instances")
    if quota.memory_mib and memory_bytes + need_bytes > quota.memory_mib * _MIB:
        used = memory_bytes // _MIB
        return _exceeded(tenant, "memory_mib", quota.memory_mib, used, "MiB of live instances")
    return None


def _exceeded(tenant: str, quota: str, limit: int, used: int, what: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"tenant {tenant!r} uses {used:,} of {limit:,} {what}",
        details={"quota": quota, "limit": limit, "used": used},
    )


class _Account:
    """One tenant that has a quota."""

    def __init__(self, tenant: Tenant, use: TenantUse, now: float) -> None:
        self.tenant = tenant
        self.use = use
        self.ledger = Today(day=0)
        self.wants_seen = use.latest_of_others(tenant_use.WANTS)
        rate = tenant.quota.requests_per_s
        self._requests = TokenBucket(rate, rate, now) if rate else None
        self._seen = use.total(tenant_use.REQUESTS)

    def admit_request(self, now: float) -> None:
        """Every worker keeps the same bucket: what the others let in is spent here too."""
        if self._requests is None:
            return
        total = self.use.total(tenant_use.REQUESTS)
        left = self._requests.left(now)
        self._requests.spend(total - self._seen)
        self._seen = total
        left = self._requests.left(now)
        if left < 1:
            rate = self.tenant.quota.requests_per_s
            raise TooManyRequests(
                f"tenant {self.tenant.name!r} gets more than {rate:,} requests per second",
                details={"retry_after_s": self._requests.wait_s(1)},
            )
        self.use.add(tenant_use.REQUESTS, 1)

    def today(self, day: int) -> tuple[int, int]:
        """CPU nanoseconds and bytes of egress."""
        counted = (
            self.use.of_day(tenant_use.CPU_NS, day),
            self.use.of_day(tenant_use.EGRESS, day),
        )
        if self.ledger.day != day:
            return counted
        return max(counted[0], self.ledger.cpu_ns), max(counted[1], self.ledger.egress_bytes)


class Quotas:
    """`clock` gives seconds since the epoch: a day is UTC's."""

    def __init__(
        self, *, folder: Path, worker: int, workers: int, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._workers = workers
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._suspended: frozenset[str] = frozenset()

    def follow(self, tenants: Mapping[TenantName, Tenant]) -> None:
        """The tenants of the node as they are now."""
        self._suspended = frozenset(name for name, one in tenants.items() if one.suspended)
        limited = {name: one for name, one in tenants.items() if one.quota != Quota()}
        for name in [name for name in self._accounts if name not in limited]:
            self._accounts.pop(name).use.close()
        for name, tenant in limited.items():
            known = self._accounts.get(name)
            if known is None:
                use = TenantUse(self._folder, name, worker=self._worker, workers=self._workers)
                self._accounts[name] = _Account(tenant, use, time.monotonic())
            elif known.tenant != tenant:
                self._accounts[name] = _Account(tenant, known.use, time.monotonic())
                self._accounts[name].ledger = known.ledger

    def admit(self, tenant: str) -> None:
        """One request. Raises TenantSuspended, QuotaExceeded or TooManyRequests."""
        self.check_today(tenant)
        account = self._accounts.get(tenant)
        if account is not None:
            account.admit_request(time.monotonic())

    def check_today(self, tenant: str) -> None:
        """Raises TenantSuspended and QuotaExceeded."""
        if tenant in self._suspended:
            raise TenantSuspended(f"tenant {tenant!r} is suspended")
        account = self._accounts.get(tenant)
        if account is None:
            return
        error = over_today(tenant, account.tenant.quota, *account.today(self._day()))
        if error is not None:
            raise error

    def count(self, tenant: str, *, cpu_ns: int, egress_bytes: int) -> None:
        """What was used just now, by this worker."""
        account = self._accounts.get(tenant)
        if account is not None and (cpu_ns or egress_bytes):
            account.use.begin_day(self._day())
            account.use.add(tenant_use.CPU_NS, cpu_ns)
            account.use.add(tenant_use.EGRESS, egress_bytes)

    def ledger_says(self, used: Mapping[str, Today]) -> None:
        """What the ledger has counted today, of tenants that have a quota or not."""
        for name, today in used.items():
            if name in self._accounts:
                self._accounts[name].ledger = today

    # -- live instances ---------------------------------------------------------------------

    def limited(self, tenant: str) -> bool:
        return tenant in self._accounts

    def set_live(self, tenant: str, *, instances: int, memory_bytes: int) -> None:
        """What this worker has live of a tenant."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.use.set(tenant_use.INSTANCES, instances)
            account.use.set(tenant_use.MEMORY, memory_bytes)

    def over_live(self, tenant: str, need_bytes: int) -> IsopodError | None:
        """The error if one more instance is too many, over all workers."""
        account = self._accounts.get(tenant)
        if account is None:
            return None
        use = account.use
        return over_live(
            tenant,
            account.tenant.quota,
            use.total(tenant_use.INSTANCES),
            use.total(tenant_use.MEMORY),
            need_bytes,
        )

    def memory_bytes(self, tenant: str) -> int:
        """What it may have; 0: no bound."""
        account = self._accounts.get(tenant)
        return 0 if account is None else account.tenant.quota.memory_mib * _MIB

    def grown(self, tenant: str) -> bool:
        """Whether its instances have outgrown its memory, over all workers."""
        account = self._accounts.get(tenant)
        if account is None or not account.tenant.quota.memory_mib:
            return False
        return account.use.total(tenant_use.MEMORY) > account.tenant.quota.memory_mib * _MIB

    def want_room(self, tenant: str) -> None:
        """Ask the other workers to end an idle instance of the tenant."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.use.set(tenant_use.WANTS, time.monotonic_ns())

    def room_wanted(self, tenant: str) -> bool:
        """Whether another worker has asked since the last call."""
        account = self._accounts.get(tenant)
        if account is None:
            return False
        seen, account.wants_seen = (
            account.wants_seen,
            account.use.latest_of_others(tenant_use.WANTS),
        )
        return account.wants_seen > seen

    def close(self) -> None:
        for account in self._accounts.values():
            account.use.close()
        self._accounts.clear()

    def _day(self) -> int:
        return int(self._clock() // _DAY_S)
