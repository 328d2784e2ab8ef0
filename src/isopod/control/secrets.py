"""Secrets of an app: kept sealed, told to nobody, given to its instances when they start.

They belong to the app and not to a version: a change restarts its instances, and builds nothing.
Only when one comes or goes the image is taken anew, since the app may have looked for it at its
start. They may be set before the first deploy, which tries the app with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from isopod.control.amounts import check_most, check_tenant
from isopod.control.audit import audited, entry
from isopod.control.node import Node, fitting
from isopod.control.switching import put_route
from isopod.errors import (
    AppNotFound,
    IsopodError,
    QuotaExceeded,
    SecretNotFound,
    SecretsUnreadable,
    UsageError,
)
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.secret import (
    MOST_BYTES,
    MOST_OF_APP,
    MOST_OF_TENANT,
    bound_to,
    check_values,
)
from isopod.sealing import size_of
from isopod.state.apps import App
from isopod.state.handles import TenantHandles

_MOST_AT_ONCE = 2 * MOST_OF_APP


@dataclass(frozen=True, slots=True)
class SecretSummary:
    name: str
    changed_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class SecretsChange:
    """All of it or nothing."""

    set: Mapping[str, str] = field(repr=False)
    unset: Sequence[str] = ()

    def check(self) -> None:
        """UsageError."""
        if not self.set and not self.unset:
            raise UsageError("nothing to set or unset")
        # Before they are sealed one by one, while nobody else may write.
        if (asked := max(len(self.set), len(self.unset))) > _MOST_AT_ONCE:
            raise UsageError(f"at most {_MOST_AT_ONCE} secrets are changed at once, not {asked:,}")
        if both := sorted(set(self.set) & set(self.unset)):
            raise UsageError(f"secret {both[0]!r} would be set and unset")
        check_values(self.set)


@dataclass(frozen=True, slots=True)
class SecretsChanged:
    changed: list[str]  # names of those whose values are others now, or that are new
    removed: list[str]
    live: bool  # the app is deployed: its instances were replaced


async def list_secrets(who: Principal, app: AppName, *, node: Node) -> list[SecretSummary]:
    """By name. AppNotFound when there is neither the app nor a secret of it."""
    who.need("read")

    def read() -> list[SecretSummary]:
        mine = node.state.of(who.tenant)
        found = [SecretSummary(one.name, one.changed_at) for one in mine.secrets.of(app)]
        if not found and mine.apps.get(app) is None:
            raise AppNotFound(f"there is no app {app!r}")
        return found

    return await asyncio.to_thread(read)


async def change_secrets(
    who: Principal, app: AppName, change: SecretsChange, *, node: Node
) -> SecretsChanged:
    """Returns when no new request reaches an instance with the values of before. SecretNotFound,
    QuotaExceeded, UsageError."""
    async with audited(who, "secrets.change", app, node=node):
        who.need("deploy")
        change.check()
        return await asyncio.shield(_change(who, app, change, node=node))


async def _change(
    who: Principal, app: AppName, change: SecretsChange, *, node: Node
) -> SecretsChanged:
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    changed: list[str] = []

    def commit() -> App | None:
        now = node.clock()
        with node.state.transaction() as t:
            check_tenant(who, t.node.tenants)
            mine = t.of(who.tenant)
            before.update(mine.secrets.sealed(app))
            if missing := sorted(set(change.unset) - set(before)):
                raise SecretNotFound(f"app {app!r} has no secret {missing[0][:80]!r}")
            changed.extend(_changed(who, app, change.set, before, node=node))
            sealed = {
                name: node.sealing.seal(change.set[name], bound_to=_bound(who, app, name))
                for name in changed
            }
            kept = {k: v for k, v in (before | sealed).items() if k not in change.unset}
            after.update(kept)
            _check_amounts(app, after, more=len(after) - len(before), mine=mine)
            mine.secrets.delete(app, change.unset)
            mine.secrets.put(app, sealed, now=now)
            found = mine.apps.get(app)
            if found is not None:
                _drop_snapshot(found, after, mine=mine)
            details = {"set": sorted(changed), "unset": sorted(change.unset)}
            mine.audit.add(entry(who, "secrets.change", app, now, details=details))
        return found

    found = await asyncio.to_thread(commit)
    if found is not None and (changed or change.unset):
        await _follow(who, found, before, after, node=node)
    return SecretsChanged(sorted(changed), sorted(change.unset), live=found is not None)


def _changed(
    who: Principal,
    app: AppName,
    values: Mapping[str, str],
    before: Mapping[str, str],
    *,
    node: Node,
) -> list[str]:
    """Those of `values` that are not what they were: who sets the same again restarts nothing."""
    found = []
    for name, value in values.items():
        if name in before:
            with suppress(SecretsUnreadable):  # then it is worth setting
                if node.sealing.open(before[name], bound_to=_bound(who, app, name)) == value:
                    continue
        found.append(str(name))
    return found


def _bound(who: Principal, app: AppName, name: str) -> str:
    return bound_to(who.tenant, app, name)


def _check_amounts(
    app: AppName, after: Mapping[str, str], *, more: int, mine: TenantHandles
) -> None:
    if len(after) > MOST_OF_APP:
        raise QuotaExceeded(
            f"app {app!r} would have {len(after)} secrets and may have {MOST_OF_APP}",
            details={"quota": "secrets", "limit": MOST_OF_APP, "used": len(after)},
        )
    if sum(len(name) + size_of(sealed) for name, sealed in after.items()) > MOST_BYTES:
        raise UsageError(f"the secrets of app {app!r} would be larger than {MOST_BYTES >> 10} KiB")
    if more > 0:
        check_most("secrets", mine.secrets.count() + more - 1, MOST_OF_TENANT)


def _drop_snapshot(app: App, after: Mapping[str, str], *, mine: TenantHandles) -> None:
    """Until there is one that was taken with these; plain boots serve meanwhile."""
    live = mine.versions.get(app.label, app.live_version)
    if live is not None and fitting(live, after) is not live:
        mine.versions.set_snapshot(live, None)


async def _follow(
    who: Principal, app: App, before: Mapping[str, str], after: Mapping[str, str], *, node: Node
) -> None:
    """Routes and workers follow state; when routes cannot, state goes back."""
    try:
        live = await asyncio.to_thread(put_route, app, who.tenant, node)
    except IsopodError:
        await asyncio.to_thread(_take_back, who, app, before, after, node)
        raise
    await node.workers.refresh(app.label)
    if live is not None:
        node.renewals.look_at(live, who.tenant)


def _take_back(
    who: Principal, app: App, before: Mapping[str, str], after: Mapping[str, str], node: Node
) -> None:
    """Unless another change, or a deletion of the app, came after ours."""
    with node.state.transaction() as t:
        mine = t.of(who.tenant)
        if mine.secrets.sealed(app.name) != after:
            return
        mine.secrets.delete_all(app.name)
        mine.secrets.put(app.name, before, now=node.clock())
