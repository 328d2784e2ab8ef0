"""A tenant's quota of amounts, checked in the transaction that would pass it. (Rates and what live
instances use are the gateway's.)"""

from __future__ import annotations

from isopod.blobs.store import BlobStore
from isopod.control.twins import blobs_of
from isopod.errors import (
    BlobMissing,
    EgressRefused,
    QuotaExceeded,
    TenantNotFound,
    TenantSuspended,
)
from isopod.model.app import AppSpec, AppVersion
from isopod.model.capability import listed
from isopod.model.ids import Digest
from isopod.model.principal import Principal
from isopod.model.tenant import Quota, TenantName
from isopod.state.handles import TenantHandles
from isopod.state.tenants import Tenants

_TRIES = 4  # packages that fail to build take space until they are swept


def check_egress(spec: AppSpec, tenant: TenantName, tenants: Tenants) -> None:
    """EgressRefused when the app lists what its tenant may not reach."""
    found = tenants.get(tenant)
    if found is None or (bound := found.egress) is None:
        return
    beyond = [
        str(target)
        for target in spec.network.allow
        if not any(rule.covers(target) for rule in bound)
    ]
    if beyond:
        may = ", ".join(map(str, bound)) or "nothing"
        raise EgressRefused(
            f"app {spec.name!r} lists {listed(beyond)} in [network] allow, and the apps of this "
            f"tenant may connect to {may}",
            details={"refused": beyond, "egress": [str(rule) for rule in bound]},
        )


def check_tenant(who: Principal, tenants: Tenants) -> Quota:
    """The quota of a tenant that may change something. TenantNotFound when it was deleted
    meanwhile, TenantSuspended unless the operator asks."""
    tenant = tenants.get(who.tenant)
    if tenant is None:
        raise TenantNotFound(f"there is no tenant {who.tenant!r}")
    if tenant.suspended and not who.operator:
        raise TenantSuspended("this tenant is suspended")
    return tenant.quota


def check_apps(quota: Quota, mine: TenantHandles) -> None:
    """QuotaExceeded when there may be no more apps."""
    if quota.apps and (used := mine.apps.count()) >= quota.apps:
        raise QuotaExceeded(
            f"the tenant has {used} apps and may have {quota.apps}",
            details={"quota": "apps", "limit": quota.apps, "used": used},
        )


def check_most(what: str, used: int, limit: int) -> None:
    """QuotaExceeded when there may be no more: a bound that every tenant has."""
    if used >= limit:
        raise QuotaExceeded(
            f"the tenant has {used} {what} and may have {limit}",
            hint=f"remove some of its {what} first",
            details={"quota": what, "limit": limit, "used": used},
        )


def check_storage(
    quota: Quota, version: AppVersion, *, mine: TenantHandles, blobs: BlobStore
) -> None:
    """QuotaExceeded when the live versions, with this one, name more bytes of blobs."""
    if not quota.storage_mib:
        return
    digests = mine.versions.live_blobs(but=version.app) | {version.package, *blobs_of(version)}
    used_bytes = sum(_size(blobs, digest) for digest in digests)
    used_bytes += mine.volumes.total_mib() << 20
    if used_bytes > quota.storage_mib << 20:
        used = -(-used_bytes >> 20)
        raise QuotaExceeded(
            f"the tenant's apps would need {used} MiB of storage and may have {quota.storage_mib}",
            details={"quota": "storage_mib", "limit": quota.storage_mib, "used": used},
        )


def storage_bytes(*, mine: TenantHandles, blobs: BlobStore) -> int:
    """Of the live versions, and what its volumes may hold."""
    named = sum(_size(blobs, digest) for digest in mine.versions.live_blobs())
    return named + (mine.volumes.total_mib() << 20)


def check_uploads(
    quota: Quota, sent: Digest, size: int, *, mine: TenantHandles, blobs: BlobStore
) -> None:
    """QuotaExceeded when packages that were sent and not deployed would pass some times of what the
    tenant may store. They are swept after an hour, and then there is room again."""
    if not quota.storage_mib:
        return
    others = mine.packages.unused() - {sent}
    used_bytes = size + sum(_size(blobs, digest) for digest in others)
    limit = _TRIES * quota.storage_mib
    if used_bytes > limit << 20:
        used = -(-used_bytes >> 20)
        raise QuotaExceeded(
            f"packages that were sent and not deployed would take {used} MiB of {limit}",
            hint="deploy what was sent, or wait for an hour: what nobody deploys is removed",
            details={"quota": "storage_mib", "limit": limit, "used": used},
        )


def _size(blobs: BlobStore, digest: Digest) -> int:
    try:
        return blobs.size(digest)
    except BlobMissing:  # costs nothing, and is another check's to tell
        return 0
