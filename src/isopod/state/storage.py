"""What the node's blobs are still needed for, and what state itself may forget.

A blob is needed by a version, whoever's. Builds and records of uploads only save work: they go when
no version needs what they name.
"""

from __future__ import annotations

import json

from sqlalchemy import and_, delete, exists, func, or_, select

from isopod.model.ids import Digest
from isopod.state.apps import Connect
from isopod.state.tables import apps, builds, packages, versions


class Storage:
    """Of all tenants."""

    def __init__(self, reading: Connect, writing: Connect) -> None:
        self._reading, self._writing = reading, writing

    def blobs_in_use(self) -> set[Digest]:
        """Packages, trees and images of every version that there is."""
        v = versions.c
        with self._reading() as db:
            rows = db.execute(select(v.package, v.app_tree, v.site_tree).distinct()).all()
            texts = db.execute(select(v.snapshot).where(v.snapshot.is_not(None)).distinct())
            images = {json.loads(text)["image"] for (text,) in texts}
        return {Digest(one) for row in rows for one in row} | {Digest(one) for one in images if one}

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
