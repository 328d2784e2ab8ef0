"""What tenants used, as bills and signed statements; and how stored snapshots are measured.

A caller sees its own tenant's usage. The operator may ask for another's, also of one that was
deleted, or for all. Deleted apps stay in the bill.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

from isopod.control.node import Node
from isopod.errors import AppNotFound, IsopodError, TenantNotFound, UsageError
from isopod.metering.bill import GRAIN_S, Bill, By, Used, make_bill
from isopod.metering.period import parse_month, parse_period
from isopod.metering.prices import Sheets, Stored, held
from isopod.metering.reading import Faults, LedgerReader, minutes_kept_from
from isopod.metering.rollups import DAY, HOUR, HOURS_KEPT, Sums, finest, hours_kept_from
from isopod.metering.signing import SigningKey
from isopod.metering.statement import make_statement
from isopod.metering.storage import EVERY_S, StorageLedger
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.tenant import TenantName

ALL_TENANTS = "*"  # no tenant can be called so
_MOST_HOURS = 100 * 24  # lines of one answer
log = logging.getLogger(__name__)


async def read_usage(
    who: Principal, *, tenant: str, app: str, since: str, until: str, by: By, node: Node
) -> Bill:
    """`tenant` "" is the caller's own. The period is widened to what is kept: whole days or hours
    by "day" and "hour", else whole minutes (whole hours where minutes are no longer kept, whole
    days where hours are not).

    Forbidden, TenantNotFound, AppNotFound, UsageError.
    """
    who.need("usage")
    now = node.clock()
    period = parse_period(since, until, now=now)
    name = AppName.parse(app) if app else None
    start, end = _widened(period, by, minutes_kept_from(now, _keep_s(node)), hours_kept_from(now))
    if by == "hour" and start < hours_kept_from(now):
        raise UsageError(
            f"hours are kept for {HOURS_KEPT} days", hint="ask by day, or for a later time"
        )
    if by == "hour" and (end - start) // HOUR > _MOST_HOURS:
        raise UsageError(
            f"the period has more than {_MOST_HOURS:,} hours", hint="ask by day, or for less"
        )

    def read() -> Bill:
        used: list[Used] = []
        sheets = _sheets(node)
        for one in _tenants(who, tenant, node):
            found = [
                piece
                for since, until in _pieces(sheets, start, end, by)
                for piece in _used(one, name, since, until, by, node)
            ]
            if name and not found and not _has_app(one, name, node) and tenant != ALL_TENANTS:
                raise AppNotFound(f"there is no app {name!r}, nor usage of one")
            used += found
        return make_bill(used, since=start, until=end, by=by, sheets=sheets)

    return await asyncio.to_thread(read)


async def read_statement(who: Principal, *, tenant: str, month: str, node: Node) -> dict[str, Any]:
    """A tenant's month, signed. Forbidden, TenantNotFound, UsageError."""
    who.need("usage")
    if tenant == ALL_TENANTS:
        raise UsageError("a statement is one tenant's", hint="ask for each by its name")
    start, end = parse_month(month)
    now = int(node.clock())
    if start > now:
        raise UsageError(f"{month!r} has not begun")

    def make() -> dict[str, Any]:
        (name,) = _tenants(who, tenant, node)
        used = [
            one
            for day in range(start, min(end, now + 1), DAY)
            for one in _used(name, None, day, day + DAY, "app", node)
        ]
        bill = make_bill(used, since=start, until=end, by="app", sheets=_sheets(node))
        faults = Faults()
        if node.settings.ledger_path.exists():
            faults = _ledger(node).faults(name, since=start, until=end)
        key = SigningKey.at(node.settings.signing_key_path)
        return make_statement(bill, used, tenant=name, faults=faults, made_at=now, key=key)

    return await asyncio.to_thread(make)


async def signing_key(who: Principal, *, node: Node) -> SigningKey:
    """The node's, made at first use. Only its public half leaves the node."""
    who.need("usage")
    return await asyncio.to_thread(SigningKey.at, node.settings.signing_key_path)


async def watch_storage(node: Node) -> None:
    """Note every few minutes which snapshots and volumes there are; until it is cancelled."""
    while True:
        try:
            await asyncio.to_thread(look_at_storage, node)
        except IsopodError as bad:  # a full disk, say: the next look may do better
            log.error("what is stored could not be noted: %s", bad)
        await asyncio.sleep(EVERY_S)


def look_at_storage(node: Node) -> None:
    """The snapshots of live versions, compressed as they are stored. One that several apps share
    counts for each of them, as its memory does. Of volumes what they may hold, as for the quota: it
    is kept free for them."""
    sizes = (
        (tenant, version.app, version.snapshot.blob_bytes)
        for tenant, version in node.state.node.live()
        if version.snapshot is not None
    )
    snapshots, volumes = _storage(node)
    now = node.clock()
    snapshots.look(now, sizes)
    volumes.look(
        now, ((tenant, app, size << 20) for tenant, app, size in node.state.node.volume_sizes())
    )


def _tenants(who: Principal, asked: str, node: Node) -> list[TenantName]:
    """Whose usage is meant. To anybody but the operator no other tenant exists."""
    if asked in ("", who.tenant):
        return [who.tenant]
    if asked == ALL_TENANTS:
        who.need_operator()
        known = {one.name for one in node.state.node.tenants.all()}
        if node.settings.ledger_path.exists():
            known |= set(_ledger(node).tenants())
        return sorted(known)
    name = TenantName.parse(asked)
    if not who.operator or not node.state.node.tenants.is_taken(name):
        raise TenantNotFound(f"there is no tenant {asked!r}")
    return [name]


def _used(
    tenant: TenantName, app: AppName | None, start: int, end: int, by: By, node: Node
) -> list[Used]:
    """By app `start` is the period's, and by day and hour the app is ""."""
    # An app that was deleted is in no table but the ledger: its labels follow from its name.
    labels = (app, f"{app}--{tenant}") if app else (None,)
    found: list[Used] = []
    if node.settings.ledger_path.exists():
        ledger = _ledger(node)
        for label in labels:
            for one in ledger.totals(tenant, app=label, since=start, until=end, by=by):
                name = _short(one.app, tenant) if by == "app" else ""
                found.append(Used(tenant, name, one.start or start, one.sums))
    for kind, ledger_of in zip(("snapshot", "volume"), _storage(node), strict=True):
        for kept in ledger_of.stored(
            tenant,
            since=start,
            until=end,
            now=node.clock(),
            by=by,
            labels=[label for label in labels if label],
        ):
            stored = Stored(**{f"{kind}_byte_s": kept.byte_s})
            name = _short(kept.app, tenant)
            found.append(Used(tenant, name, kept.start or start, Sums(), stored))
    return found


def _pieces(sheets: Sheets, start: int, end: int, by: By) -> list[tuple[int, int]]:
    """The parts of a period that have one price sheet; sheets change between days."""
    if by != "app":
        return [(start, end)]
    edges = [start, *(since for since, _ in held(sheets, start, end)[1:]), end]
    return list(itertools.pairwise(edges))


def _sheets(node: Node) -> Sheets:
    kept = _ledger(node).sheets() if node.settings.ledger_path.exists() else ()
    return kept or ((0, node.settings.prices),)


def _widened(
    period: tuple[int, int], by: By, minutes_from: int, hours_from: int
) -> tuple[int, int]:
    def grain(at: int) -> int:
        return GRAIN_S.get(by) or finest(at, minutes_from=minutes_from, hours_from=hours_from)

    start, end = period
    return start - start % grain(start), end + -end % grain(end)


def _has_app(tenant: TenantName, name: AppName, node: Node) -> bool:
    return node.state.of(tenant).apps.get(name) is not None


def _short(label: str, tenant: TenantName) -> str:
    """An app's name within its tenant (see `model.tenant.app_label`)."""
    return label.removesuffix(f"--{tenant}")


def _ledger(node: Node) -> LedgerReader:
    return LedgerReader(node.settings.ledger_path, keep_s=_keep_s(node), clock=node.clock)


def _storage(node: Node) -> tuple[StorageLedger, StorageLedger]:
    """Of snapshots, and of volumes."""
    settings = node.settings
    settings.usage_dir.mkdir(mode=0o700, exist_ok=True)
    return StorageLedger(settings.storage_path), StorageLedger(settings.volume_storage_path)


def _keep_s(node: Node) -> float:
    return node.settings.usage_keep_h * 3600.0
