"""What the node's blobs are still needed for, and what state itself may forget.

A blob is needed by a version, whoever's. Builds and records of uploads only save work: they go when
no version needs what they name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import and_, delete, exists, func, or_, select

from isopod.model.ids import Digest
from isopod.model.tenant import DEFAULT_TENANT
from isopod.state.apps import Connect
from isopod.state.tables import apps, builds, packages, tenants, versions
from isopod.state.versions import blobs_of_node


class Storage:
    """Of all tenants."""

    def __init__(self, reading: Connect, writing: Connect, path: Path) -> None:
        self._reading, self._writing, self._path = reading, writing, path

    def name(self) -> str:
        """Of this state and no other: a new one that took its place has another."""
        return repr(self._began())

    def made_at(self) -> float:
        """When this state began, or later: its first tenant is as old as the tables of tenants,
        and apps may be older than these."""
        with self._reading() as db:
            oldest = db.execute(select(func.min(apps.c.created_at))).scalar_one_or_none()
        began = self._began()
        return began if oldest is None else min(began, oldest)

    def blobs_in_use(self) -> set[Digest]:
        """Packages, trees and images of every version that there is. StateCorrupt when one of
        them is damaged: then nobody knows."""
        return blobs_of_node(self._reading, self._path)

    def in_use(self, some: Collection[Digest]) -> set[Digest]:
        """Those of `some` that a version needs. For a last look, inside the transaction in which
        the others are removed."""
        found: set[Digest] = set()
        image = func.json_extract(versions.c.snapshot, "$.image")
        with self._reading() as db:
            for named in (versions.c.package, versions.c.app_tree, versions.c.site_tree, image):
                found.update(db.execute(select(named).where(named.in_(some)).distinct()).scalars())
        return found

    def forget_old_versions(self, *, keep: int) -> int:
        """All but the newest `keep` of each app and its live version. How many went."""
        newer = versions.alias("newer")
        rank = (
            select(func.count())
            .where(newer.c.app == versions.c.app, newer.c.number > versions.c.number)
            .scalar_subquery()
        )
        live = exists().where(
            apps.c.name == versions.c.app, apps.c.live_version == versions.c.number
        )
        old = select(versions.c.app, versions.c.number).where(rank >= keep, ~live)
        with self._reading() as db:
            found = db.execute(old).all()
        if not found:
            return 0
        which = [and_(versions.c.app == app, versions.c.number == n) for app, n in found]
        with self._writing() as db:
            for start in range(0, len(which), 200):
                # Live meanwhile? Then it stays: a rollback may have been faster.
                chosen = or_(*which[start : start + 200])
                db.execute(delete(versions).where(chosen, ~live))
        return len(found)

    def forget_unused(self, *, before: float) -> None:
        """Builds and uploads older than `before`, of packages that no version is made from."""
        for table, package in ((builds, builds.c.package), (packages, packages.c.digest)):
            used = exists().where(versions.c.package == package)
            unused = and_(table.c.created_at < before, ~used)
            with self._reading() as db:
                found = db.execute(select(package).where(unused).limit(1)).first()
            if found:  # a transaction that changes nothing would be a change all the same
                with self._writing() as db:
                    db.execute(delete(table).where(unused))

    def _began(self) -> float:
        """The tenant that every node has was made with the table, and cannot be deleted."""
        found = select(tenants.c.created_at).where(tenants.c.name == DEFAULT_TENANT)
        with self._reading() as db:
            return float(db.execute(found).scalar_one())
