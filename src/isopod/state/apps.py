"""Apps: a name, the version that is live, and the folder it came from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, insert, select, update

from isopod.model.ids import AppName
from isopod.state.tables import apps

Connect = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class App:
    """A named service. `source` is the client's machine and folder, or "" when not told."""

    name: AppName
    created_at: float
    live_version: int
    source: str


class Apps:
    """The handle on all apps; narrowed to a tenant once there are tenants."""

    def __init__(self, reading: Connect, writing: Connect) -> None:
        self._reading, self._writing = reading, writing

    def get(self, name: AppName) -> App | None:
        with self._reading() as db:
            row = db.execute(select(apps).where(apps.c.name == name)).one_or_none()
        return None if row is None else _app(row)

    def all(self) -> list[App]:
        """By name."""
        with self._reading() as db:
            return [_app(row) for row in db.execute(select(apps).order_by(apps.c.name))]

    def save(self, name: AppName, *, source: str, now: float) -> None:
        """Make the app, or note where its next version came from."""
        with self._writing() as db:
            changed = db.execute(update(apps).where(apps.c.name == name).values(source=source))
            if not changed.rowcount:
                db.execute(insert(apps).values(name=name, created_at=now, source=source))

    def set_live(self, name: AppName, number: int) -> None:
        with self._writing() as db:
            db.execute(update(apps).where(apps.c.name == name).values(live_version=number))

    def delete(self, name: AppName) -> None:
        """The app and its versions; builds stay, another app may share them."""
        with self._writing() as db:
            db.execute(delete(apps).where(apps.c.name == name))


def _app(row: Row[tuple[object, ...]]) -> App:
    values = dict(row._mapping)
    return App(
        name=AppName(values["name"]),
        created_at=values["created_at"],
        live_version=values["live_version"] or 0,
        source=values["source"],
    )
