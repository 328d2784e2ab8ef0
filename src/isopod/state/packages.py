"""Which packages a tenant has uploaded: only these are there for it, whoever else has them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from isopod.model.ids import Digest
from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import apps, packages, versions


class Packages:
    """The packages of one tenant."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def has(self, digest: Digest) -> bool:
        mine = (packages.c.tenant == self._tenant) & (packages.c.digest == digest)
        with self._reading() as db:
            return db.execute(select(packages.c.digest).where(mine)).one_or_none() is not None

    def unused(self) -> set[Digest]:
        """Those that no version of the tenant is made from."""
        sent = select(packages.c.digest).where(packages.c.tenant == self._tenant)
        used = select(versions.c.package).join(apps, apps.c.name == versions.c.app)
        with self._reading() as db:
            digests = set(db.execute(sent).scalars())
            digests -= set(db.execute(used.where(apps.c.tenant == self._tenant)).scalars())
        return {Digest(digest) for digest in digests}

    def add(self, digest: Digest, *, now: float) -> None:
        """Sent now, be it once more: a row of long ago would be forgotten before the deploy."""
        row = insert(packages).values(tenant=self._tenant, digest=digest, created_at=now)
        with self._writing() as db:
            db.execute(row.on_conflict_do_update(set_={"created_at": now}))
