"""The secrets of a tenant's apps, sealed: nothing in here can open them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from isopod.model.ids import AppName
from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import secrets


@dataclass(frozen=True, slots=True)
class StoredSecret:
    name: str
    sealed: str
    changed_at: float


class Secrets:
    """Those of one tenant, by the names of its apps."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def of(self, app: AppName) -> list[StoredSecret]:
        """By name."""
        mine = (secrets.c.tenant == self._tenant) & (secrets.c.app == app)
        with self._reading() as db:
            rows = db.execute(select(secrets).where(mine).order_by(secrets.c.name)).all()
        return [StoredSecret(row.name, row.sealed, row.changed_at) for row in rows]

    def sealed(self, app: AppName) -> dict[str, str]:
        """Name -> sealed value."""
        return {one.name: one.sealed for one in self.of(app)}

    def count(self) -> int:
        """Of all its apps."""
        mine = select(func.count()).where(secrets.c.tenant == self._tenant)
        with self._reading() as db:
            return int(db.execute(mine).scalar_one())

    def put(self, app: AppName, sealed: Mapping[str, str], *, now: float) -> None:
        with self._writing() as db:
            for name, text in sealed.items():
                row = insert(secrets).values(
                    tenant=self._tenant, app=app, name=name, sealed=text, changed_at=now
                )
                changed = {"sealed": text, "changed_at": now}
                db.execute(row.on_conflict_do_update(set_=changed))

    def seal_anew(self, app: AppName, sealed: Mapping[str, str]) -> None:
        """The same values, sealed with another key: nothing has changed for who lists them."""
        mine = (secrets.c.tenant == self._tenant) & (secrets.c.app == app)
        with self._writing() as db:
            for name, text in sealed.items():
                db.execute(update(secrets).where(mine, secrets.c.name == name).values(sealed=text))

    def delete(self, app: AppName, names: Collection[str]) -> None:
        mine = (secrets.c.tenant == self._tenant) & (secrets.c.app == app)
        with self._writing() as db:
            for name in names:
                db.execute(delete(secrets).where(mine, secrets.c.name == name))

    def delete_all(self, app: AppName | None = None) -> None:
        """Of `app`, else of all the tenant's."""
        mine = secrets.c.tenant == self._tenant
        with self._writing() as db:
            db.execute(
                delete(secrets).where(mine if app is None else mine & (secrets.c.app == app))
            )


def secrets_of_node(reading: Connect) -> dict[tuple[TenantName, AppName], dict[str, str]]:
    with reading() as db:
        rows = db.execute(select(secrets)).all()
    found: dict[tuple[TenantName, AppName], dict[str, str]] = {}
    for row in rows:
        found.setdefault((TenantName(row.tenant), AppName(row.app)), {})[row.name] = row.sealed
    return found
