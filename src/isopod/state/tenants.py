"""The node's tenants. A deleted one keeps its row: its name is never given again."""

from __future__ import annotations

import json

from sqlalchemy import Row, insert, select, update

from isopod.model.network import policy_from_json, policy_to_json
from isopod.model.tenant import Quota, Tenant, TenantName
from isopod.state.apps import Connect
from isopod.state.tables import tenants


class Tenants:
    """The operator's handle on all of them."""

    def __init__(self, reading: Connect, writing: Connect) -> None:
        self._reading, self._writing = reading, writing

    def get(self, name: TenantName) -> Tenant | None:
        found = select(tenants).where(tenants.c.name == name, tenants.c.deleted_at.is_(None))
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _tenant(row)

    def all(self) -> list[Tenant]:
        """By name."""
        found = select(tenants).where(tenants.c.deleted_at.is_(None)).order_by(tenants.c.name)
        with self._reading() as db:
            return [_tenant(row) for row in db.execute(found)]

    def is_taken(self, name: TenantName) -> bool:
        """Also by one that was deleted."""
        with self._reading() as db:
            found = db.execute(select(tenants.c.name).where(tenants.c.name == name))
            return found.one_or_none() is not None

    def add(self, tenant: Tenant) -> None:
        with self._writing() as db:
            db.execute(insert(tenants).values(name=tenant.name, **_values(tenant)))

    def change(self, tenant: Tenant) -> None:
        with self._writing() as db:
            mine = tenants.c.name == tenant.name
            db.execute(update(tenants).where(mine).values(**_values(tenant)))

    def delete(self, name: TenantName, *, now: float) -> None:
        with self._writing() as db:
            db.execute(update(tenants).where(tenants.c.name == name).values(deleted_at=now))


def _values(tenant: Tenant) -> dict[str, object]:
    return {
        "created_at": tenant.created_at,
        "quota": json.dumps(tenant.quota.to_json()),
        "cordon": tenant.cordon,
        "suspended": tenant.suspended,
        "egress": None if tenant.egress is None else json.dumps(policy_to_json(tenant.egress)),
    }


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    values = dict(row._mapping)
    return Tenant(
        name=TenantName(values["name"]),
        created_at=values["created_at"],
        quota=Quota.from_json(json.loads(values["quota"])),
        cordon=values["cordon"],
        suspended=values["suspended"],
        egress=policy_from_json(None if values["egress"] is None else json.loads(values["egress"])),
    )
