"""Tells the workers what the ledger has counted today of tenants that have a quota by the day.

A worker counts by itself and acts at once; the ledger knows what was used before the node was
started again, and what a worker could not count.
"""

from __future__ import annotations

import asyncio
import logging

from isopod.control.node import Node
from isopod.errors import IsopodError
from isopod.metering.reading import LedgerReader
from isopod.metering.rollups import DAY
from isopod.model.tenant import Tenant, TenantName

EVERY_S = 5.0
_AT_ONCE = 500  # tenants in one line to a worker
log = logging.getLogger(__name__)


async def watch_quotas(node: Node) -> None:
    """Until it is cancelled."""
    while True:
        try:
            await tell_usage(node)
        except IsopodError as bad:  # a ledger that is locked, say: workers go on counting
            log.error("the workers were not told what was used today: %s", bad)
        await asyncio.sleep(EVERY_S)


async def tell_usage(node: Node) -> None:
    day = int(node.clock() // DAY)
    used = list((await asyncio.to_thread(_used_on, day, node)).items())
    for start in range(0, len(used), _AT_ONCE):
        await node.workers.usage_today(day, dict(used[start : start + _AT_ONCE]))


def _used_on(day: int, node: Node) -> dict[TenantName, tuple[int, int]]:
    """CPU nanoseconds and bytes of egress by tenant."""
    if not node.settings.ledger_path.exists():
        return {}
    keep_s = node.settings.usage_keep_h * 3600.0
    ledger = LedgerReader(node.settings.ledger_path, keep_s=keep_s, clock=node.clock)
    used = {}
    for tenant in node.state.node.tenants.all():
        if _by_the_day(tenant):
            since = day * DAY
            found = ledger.totals(tenant.name, since=since, until=since + DAY, by="day")
            cpu_ns = sum(one.sums.cpu_ns for one in found)
            used[tenant.name] = (cpu_ns, sum(one.sums.bytes_out for one in found))
    return used


def _by_the_day(tenant: Tenant) -> bool:
    return bool(tenant.quota.cpu_s_per_day or tenant.quota.egress_mib_per_day)
