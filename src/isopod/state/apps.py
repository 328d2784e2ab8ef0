"""Apps: a name within a tenant, the label the node knows it by, and the version that is live."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from isopod.model.ids import AppName
from isopod.model.tenant import DEFAULT_TENANT, TenantName, app_label
from isopod.state.tables import apps, freed_labels, volumes

Connect = Callable[[], AbstractContextManager[Connection]]
# A label that was freed is kept for its tenant for so long: an instance of the deleted app may
# still write to the log of that name, and its visitors' browsers still send it their cookies.
LABEL_KEPT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class App:
    """A named service. `source` is the client's machine and folder, or "" when not told."""

    name: AppName  # within the tenant
    label: AppName  # on the node
    created_at: float
    live_version: int
    source: str


class Apps:
    """The apps of one tenant."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def get(self, name: AppName) -> App | None:
        found = select(apps).where(apps.c.tenant == self._tenant, apps.c.short == name)
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _app(row)

    def labelled(self, label: AppName) -> App | None:
        found = select(apps).where(apps.c.tenant == self._tenant, apps.c.name == label)
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _app(row)

    def all(self) -> list[App]:
        """By name."""
        found = select(apps).where(apps.c.tenant == self._tenant).order_by(apps.c.short)
        with self._reading() as db:
            return [_app(row) for row in db.execute(found)]

    def count(self) -> int:
        found = select(func.count()).select_from(apps).where(apps.c.tenant == self._tenant)
        with self._reading() as db:
            return int(db.execute(found).scalar_one())

    def save(self, name: AppName, *, source: str, now: float) -> App:
        """Make the app, or note where its next version came from. A new one gets its label here,
        for good. NameInvalid when no label can be made of it."""
        mine = (apps.c.tenant == self._tenant) & (apps.c.short == name)
        with self._writing() as db:
            if not db.execute(update(apps).where(mine).values(source=source)).rowcount:
                label = self._free_label(db, name, now)
                values = {"short": name, "tenant": self._tenant, "source": source}
                db.execute(insert(apps).values(name=label, created_at=now, **values))
            return _app(db.execute(select(apps).where(mine)).one())

    def set_live(self, name: AppName, number: int) -> None:
        mine = (apps.c.tenant == self._tenant) & (apps.c.short == name)
        with self._writing() as db:
            db.execute(update(apps).where(mine).values(live_version=number))

    def delete(self, name: AppName, *, now: float) -> None:
        """The app and its versions; builds stay, another app may share them."""
        mine = (apps.c.tenant == self._tenant) & (apps.c.short == name)
        with self._writing() as db:
            label = db.execute(select(apps.c.name).where(mine)).scalar_one_or_none()
            if label is None:
                return
            db.execute(delete(apps).where(mine))
            db.execute(update(volumes).where(volumes.c.app == label).values(app=None))
            db.execute(delete(freed_labels).where(freed_labels.c.freed_at < now - LABEL_KEPT_S))
            db.execute(insert(freed_labels).values(label=label, tenant=self._tenant, freed_at=now))

    def _free_label(self, db: Connection, name: AppName, now: float) -> AppName:
        if self._tenant != DEFAULT_TENANT:
            # Whether a name is too long must not depend on what others have.
            app_label(name, self._tenant, plain=False)
        taken = select(apps.c.name).where(apps.c.name == name)
        kept = select(freed_labels.c.label).where(
            freed_labels.c.label == name,
            freed_labels.c.tenant != self._tenant,
            freed_labels.c.freed_at >= now - LABEL_KEPT_S,
        )
        plain = not any(db.execute(found).one_or_none() for found in (taken, kept))
        label = AppName(app_label(name, self._tenant, plain=plain))
        db.execute(delete(freed_labels).where(freed_labels.c.label == label))
        return label


def forget_unborn(writing: Connect) -> None:
    with writing() as db:
        db.execute(delete(apps).where(apps.c.live_version.is_(None)))


def _app(row: Row[tuple[object, ...]]) -> App:
    values = dict(row._mapping)
    return App(
        name=AppName(values["short"]),
        label=AppName(values["name"]),
        created_at=values["created_at"],
        live_version=values["live_version"] or 0,
        source=values["source"],
    )
