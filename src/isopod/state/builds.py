"""Builds by key: the same inputs of the same tenant need no second build."""

from __future__ import annotations

import json

from sqlalchemy import Row, delete, insert, select

from isopod.model.app import Build
from isopod.model.ids import Digest
from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import builds


class Builds:
    """The builds of one tenant. `package` and `runtimes` (a digest of the runtimes in use) find a
    build before its key, which only the builder computes, is known."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def get(self, key: Digest) -> Build | None:
        mine = (builds.c.tenant == self._tenant) & (builds.c.key == key)
        with self._reading() as db:
            row = db.execute(select(builds).where(mine)).one_or_none()
        return None if row is None else _build(row)

    def of_package(self, package: Digest, runtimes: str) -> Build | None:
        """The newest build of this package by these runtimes."""
        found = (
            select(builds)
            .where(
                builds.c.tenant == self._tenant,
                builds.c.package == package,
                builds.c.runtimes == runtimes,
            )
            .order_by(builds.c.created_at.desc())
            .limit(1)
        )
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _build(row)

    def save(self, build: Build, *, package: Digest, runtimes: str, now: float) -> None:
        mine = (builds.c.tenant == self._tenant) & (builds.c.key == build.key)
        with self._writing() as db:
            db.execute(delete(builds).where(mine))
            db.execute(
                insert(builds).values(
                    tenant=self._tenant,
                    key=build.key,
                    package=package,
                    runtimes=runtimes,
                    app_tree=build.app_tree,
                    site_tree=build.site_tree,
                    dependencies=json.dumps(build.dependencies),
                    created_at=now,
                )
            )


def _build(row: Row[tuple[object, ...]]) -> Build:
    fields = row._mapping
    return Build.from_json(
        {
            "key": fields["key"],
            "app_tree": fields["app_tree"],
            "site_tree": fields["site_tree"],
            "dependencies": json.loads(str(fields["dependencies"])),
        }
    )
