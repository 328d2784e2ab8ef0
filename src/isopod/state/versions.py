"""Versions: immutable, numbered from 1 within their app.

Each row carries the sha256 of its own columns and is checked when it is read: SQLite's
quick_check sees a broken page, but not a changed byte inside a value. A column that is NULL is not
part of it, so that the rows of an older isopod stay right when a column is added.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Column, ColumnElement, exists, func, insert, select, update

from isopod.errors import AppNotFound, StateCorrupt
from isopod.model.app import AppSpec, AppVersion, Build
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import TenantName
from isopod.state.apps import Connect
from isopod.state.tables import apps, versions

_NAMES = tuple(column.name for column in versions.columns)


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """Digests of the deploy request that made a version, each of less than the one before. The
    tenant is part of each: what another tenant made is never found."""

    input: Digest  # all that the version depends on
    twin: Digest  # but the app's name
    shape: Digest  # and but the values of environment variables


class Versions:
    """The versions of one tenant's apps, which are named here by their labels."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect, path: Path) -> None:
        self._reading, self._writing, self._path = reading, writing, path
        self._tenant = tenant
        # For each row by itself: a list of all the tenant's apps would be made for each query.
        self._mine = exists().where(apps.c.name == versions.c.app, apps.c.tenant == tenant)

    def get(self, app: AppName, number: int) -> AppVersion | None:
        return self._one((versions.c.app == app) & (versions.c.number == number))

    def by_digest(self, app: AppName, digest: Digest) -> AppVersion | None:
        return self._one((versions.c.app == app) & (versions.c.digest == digest))

    def by_input(self, input_digest: Digest) -> AppVersion | None:
        """The newest version that an equal deploy request made, of whichever app it named."""
        return self._newest(versions.c.input, input_digest)

    def by_twin(self, twin: Digest) -> AppVersion | None:
        """The newest version made by a request that differs in the app's name at most."""
        return self._newest(versions.c.twin, twin)

    def by_shape(self, shape: Digest) -> AppVersion | None:
        """The newest version made by a request that differs at most in the app's name and in
        the values of environment variables."""
        return self._newest(versions.c.shape, shape)

    def of_app(self, app: AppName) -> list[AppVersion]:
        """Newest first."""
        mine = select(versions).where(versions.c.app == app, self._mine)
        found = mine.order_by(versions.c.number.desc())
        with self._reading() as db:
            return [self._version(row) for row in db.execute(found)]

    def live(self) -> list[AppVersion]:
        """The live version of every app of the tenant, by label."""
        found = _LIVE.where(apps.c.tenant == self._tenant)
        with self._reading() as db:
            return [self._version(row) for row in db.execute(found).all()]

    def live_blobs(self, *, but: AppName | None = None) -> set[Digest]:
        """Of the live versions: packages, builds and images, those of app `but` not counted."""
        v = versions.c
        found = _LIVE.with_only_columns(v.package, v.app_tree, v.site_tree, v.snapshot)
        with self._reading() as db:
            mine = (apps.c.tenant == self._tenant) & (v.app != (but or ""))
            rows = db.execute(found.where(mine)).all()
        digests = {Digest(one) for package, app, site, _ in rows for one in (package, app, site)}
        snapshots = {text for *_, text in rows if text}
        return digests | {image for text in snapshots if (image := _snapshot(text).image)}

    def next_number(self, app: AppName) -> int:
        with self._reading() as db:
            found = select(func.max(versions.c.number)).where(versions.c.app == app)
            return (db.execute(found).scalar_one() or 0) + 1

    def add(self, version: AppVersion, *, made_from: MadeFrom) -> None:
        values = _columns(version, made_from)
        app = (apps.c.name == version.app) & (apps.c.tenant == self._tenant)
        with self._writing() as db:
            if db.execute(select(apps.c.name).where(app)).one_or_none() is None:
                raise AppNotFound(f"there is no app {version.app!r}")
            db.execute(insert(versions).values(**values, sha256=_sha256(values)))

    def replace_build(self, version: AppVersion, *, made_from: MadeFrom) -> None:
        """Note a new build and snapshot of an existing version, after its blobs were lost."""
        values = _columns(version, made_from)
        mine = (versions.c.app == version.app) & (versions.c.number == version.number) & self._mine
        with self._writing() as db:
            db.execute(update(versions).where(mine).values(**values, sha256=_sha256(values)))

    def set_snapshot(self, version: AppVersion, snapshot: Snapshot | None) -> bool:
        """Give `version`, as it was read, a new snapshot, or (None) none until one is taken. False:
        it is another one by now."""
        mine = (versions.c.app == version.app) & (versions.c.number == version.number) & self._mine
        with self._writing() as db:
            row = db.execute(select(versions).where(mine)).one_or_none()
            if row is None or self._version(row) != version:
                return False
            values: dict[str, object] = dict(zip(_NAMES, row, strict=True))
            del values["sha256"]
            values["snapshot"] = json.dumps(snapshot.to_json()) if snapshot else None
            changed = {"snapshot": values["snapshot"], "sha256": _sha256(values)}
            db.execute(update(versions).where(mine).values(**changed))
        return True

    def _newest(self, column: Column[str], digest: Digest) -> AppVersion | None:
        found = (
            select(versions)
            .where(column == digest, self._mine)
            .order_by(versions.c.created_at.desc(), versions.c.number.desc())
            .limit(1)
        )
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else self._version(row)

    def _one(self, which: ColumnElement[bool]) -> AppVersion | None:
        with self._reading() as db:
            row = db.execute(select(versions).where(which, self._mine)).one_or_none()
        return None if row is None else self._version(row)

    def _version(self, row: Iterable[object]) -> AppVersion:
        return _checked(row, self._path)


def live_of_node(reading: Connect, path: Path) -> list[tuple[TenantName, AppVersion]]:
    """The live version of every app of every tenant, by label."""
    found = _LIVE.add_columns(apps.c.tenant)
    with reading() as db:
        rows = db.execute(found).all()
    return [(TenantName(tenant), _checked(row, path)) for *row, tenant in rows]


def blobs_of_node(reading: Connect, path: Path) -> set[Digest]:
    """Packages, trees and images of every version of every tenant. Each row is checked: a damaged
    one must not make a blob look unused."""
    found: set[Digest] = set()
    with reading() as db:
        for row in db.execute(select(versions)):
            values = _intact(row, path)
            found.update(Digest(values[name]) for name in ("package", "app_tree", "site_tree"))
            if values["snapshot"] and (image := _snapshot(values["snapshot"]).image):
                found.add(image)
    return found


_LIVE = (
    select(versions)
    .join(apps, (apps.c.name == versions.c.app) & (apps.c.live_version == versions.c.number))
    .order_by(versions.c.app)
)


def _intact(row: Iterable[object], path: Path) -> dict[str, Any]:
    """The columns by name. StateCorrupt unless they match their checksum."""
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    if values.pop("sha256") != _sha256(values):
        raise StateCorrupt(
            f"{path}: version {values['number']!r} of app {values['app']!r} "
            "does not match its checksum",
            details={"file": str(path), "app": values["app"]},
        )
    return values


def _checked(row: Iterable[object], path: Path) -> AppVersion:
    values = _intact(row, path)
    return AppVersion(
        app=AppName(values["app"]),
        number=int(values["number"]),
        digest=Digest(values["digest"]),
        package=Digest(values["package"]),
        build=_build(
            values["build_key"],
            values["app_tree"],
            values["site_tree"],
            values["dependencies"],
        ),
        spec=_spec(values["app"], values["spec"]),
        created_at=float(values["created_at"]),
        snapshot=_snapshot(values["snapshot"]) if values["snapshot"] else None,
    )


# Ten thousand apps of one package are read at every start of a node: what they share is parsed
# once. All of it is immutable.


@functools.lru_cache(1024)
def _build(key: str, app_tree: str, site_tree: str, dependencies: str) -> Build:
    return Build.from_json(
        {
            "key": key,
            "app_tree": app_tree,
            "site_tree": site_tree,
            "dependencies": json.loads(dependencies),
        }
    )


@functools.lru_cache(1024)
def _snapshot(text: str) -> Snapshot:
    return Snapshot.from_json(json.loads(text))


def _spec(app: str, text: str) -> AppSpec:
    """Specifications that differ in their names alone are parsed once. Where a setting reads like
    the name, there are two of them, and it is parsed by itself."""
    member = f'"name": "{app}"'
    before, found, after = text.partition(member)
    if not found or member in after:
        return AppSpec.from_json(json.loads(text))
    return replace(_unnamed(before, after), name=AppName(app))


@functools.lru_cache(1024)
def _unnamed(before: str, after: str) -> AppSpec:
    return AppSpec.from_json(json.loads(f'{before}"name": ""{after}'))


def _columns(version: AppVersion, made_from: MadeFrom) -> dict[str, object]:
    return {
        "app": str(version.app),
        "number": version.number,
        "digest": str(version.digest),
        "input": str(made_from.input),
        "twin": str(made_from.twin),
        "shape": str(made_from.shape),
        "package": str(version.package),
        "build_key": str(version.build.key),
        "app_tree": str(version.build.app_tree),
        "site_tree": str(version.build.site_tree),
        "dependencies": json.dumps(version.build.dependencies),
        "spec": json.dumps(version.spec.to_json(), sort_keys=True),
        "created_at": version.created_at,
        "snapshot": json.dumps(version.snapshot.to_json()) if version.snapshot else None,
    }


_canonical = json.JSONEncoder(sort_keys=True, default=str).encode


def _sha256(columns: dict[str, object]) -> str:
    columns = {name: value for name, value in columns.items() if value is not None}
    return hashlib.sha256(_canonical(columns).encode()).hexdigest()
