"""The audit log: an entry for every change, also for those that failed.

What was done is entered in the transaction that does it, so neither is there without the other.
What was refused or failed is entered here, by `audited`; of many, some (see `control.refusals`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from isopod.control.node import Node
from isopod.errors import DiskFull, IsopodError, StateBusy
from isopod.model.principal import Principal
from isopod.state.audit import AuditEntry

MAX_ENTRIES = 10_000  # in one answer
_TARGET_CHARS = 200  # a target is the caller's text


def entry(
    who: Principal,
    action: str,
    target: str,
    now: float,
    *,
    outcome: str = "ok",
    details: Mapping[str, object] | None = None,
) -> AuditEntry:
    """`action` is "noun.verb"; `details` never hold a secret."""
    return AuditEntry(
        at=now,
        tenant=who.tenant,
        actor=who.name,
        token_id=who.token_id,
        address=who.address,
        action=action,
        target=target[:_TARGET_CHARS],
        outcome=outcome,
        details=details or {},
    )


@asynccontextmanager
async def audited(who: Principal, action: str, target: str, *, node: Node) -> AsyncIterator[None]:
    """Enters the error that ends the block, and lets it go on."""
    try:
        yield
    except IsopodError as error:
        left_out = node.refusals.refused(who, action, error.code)
        if left_out is not None:
            details = {"left_out": dict(left_out)} if left_out else {}
            now = node.clock()
            failed = entry(who, action, target, now, outcome=error.code, details=details)
            with suppress(DiskFull, StateBusy):  # the caller is told of the first error
                await asyncio.to_thread(node.state.of(who.tenant).audit.add, failed)
        raise


async def read_audit(
    who: Principal, *, since: float, limit: int, all_tenants: bool, node: Node
) -> list[AuditEntry]:
    """Newest first. `all_tenants` is the operator's."""
    who.need("admin", suspended_too=True)
    if all_tenants:
        who.need_operator()
    state = node.state
    for refused, counts in node.refusals.due(None if all_tenants else who.tenant):
        details = {"left_out": dict(counts)}
        more = entry(
            refused, "audit.left_out", "", node.clock(), outcome="refused", details=details
        )
        with suppress(DiskFull, StateBusy):  # no reason to refuse who only wants to read
            await asyncio.to_thread(state.of(refused.tenant).audit.add, more)
    log = state.node.audit if all_tenants else state.of(who.tenant).audit
    return await asyncio.to_thread(log.last, since=since, limit=min(limit, MAX_ENTRIES))
