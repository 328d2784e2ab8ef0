"""Volumes: their names and sizes, and which app mounts each. Not what they hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update

from isopod.errors import VolumeInUse, VolumeNotFound
from isopod.model.tenant import TenantName
from isopod.model.volume import VolumeName
from isopod.state.apps import Connect
from isopod.state.tables import volumes


@dataclass(frozen=True, slots=True)
class Volume:
    """`app`: the label of the app whose live version mounts it, "" for none."""

    name: VolumeName
    size_mib: int
    created_at: float
    app: str = ""


class Volumes:
    """The volumes of one tenant."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def get(self, name: str) -> Volume | None:
        mine = select(volumes).where(volumes.c.tenant == self._tenant, volumes.c.name == name)
        with self._reading() as db:
            row = db.execute(mine).one_or_none()
        return None if row is None else _volume(row)

    def all(self) -> list[Volume]:
        """By name."""
        found = select(volumes).where(volumes.c.tenant == self._tenant).order_by(volumes.c.name)
        with self._reading() as db:
            return [_volume(row) for row in db.execute(found)]

    def sizes(self) -> dict[str, int]:
        """Name -> MiB."""
        found = select(volumes.c.name, volumes.c.size_mib).where(volumes.c.tenant == self._tenant)
        with self._reading() as db:
            return {str(name): int(size) for name, size in db.execute(found)}

    def total_mib(self) -> int:
        found = select(func.coalesce(func.sum(volumes.c.size_mib), 0))
        with self._reading() as db:
            return int(db.execute(found.where(volumes.c.tenant == self._tenant)).scalar_one())

    def add(self, volume: Volume) -> None:
        values = {"size_mib": volume.size_mib, "created_at": volume.created_at}
        with self._writing() as db:
            db.execute(insert(volumes).values(tenant=self._tenant, name=volume.name, **values))

    def resize(self, name: str, size_mib: int) -> None:
        with self._writing() as db:
            db.execute(update(volumes).where(self._named([name])).values(size_mib=size_mib))

    def delete(self, name: str) -> None:
        with self._writing() as db:
            db.execute(delete(volumes).where(self._named([name])))

    def mount(self, label: str, names: Collection[str]) -> None:
        """The app of that label mounts these from now on, and no others. VolumeNotFound;
        VolumeInUse when another app mounts one."""
        known = {volume.name: volume for volume in self.all()} if names else {}
        for name in names:
            if name not in known:
                raise VolumeNotFound(
                    f"there is no volume {name!r}",
                    hint=f"`isopod volumes create {name}` makes it",
                )
            if known[VolumeName(name)].app not in ("", label):
                raise VolumeInUse(
                    f"volume {name!r} is mounted by app {known[VolumeName(name)].app!r}, and a "
                    "volume has one writer"
                )
        mine = (volumes.c.tenant == self._tenant) & (volumes.c.app == label)
        with self._writing() as db:
            db.execute(update(volumes).where(mine).values(app=None))
            if names:
                db.execute(update(volumes).where(self._named(names)).values(app=label))

    def _named(self, names: Collection[str]) -> ColumnElement[bool]:
        return (volumes.c.tenant == self._tenant) & volumes.c.name.in_(names)


def volume_sizes_of_node(reading: Connect) -> list[tuple[TenantName, str, int]]:
    """See `NodeHandles.volume_sizes`."""
    app = func.coalesce(volumes.c.app, "")
    found = select(volumes.c.tenant, app, func.sum(volumes.c.size_mib)).group_by(
        volumes.c.tenant, app
    )
    with reading() as db:
        return [
            (TenantName(tenant), str(name), int(mib)) for tenant, name, mib in db.execute(found)
        ]


def _volume(row: Row[tuple[object, ...]]) -> Volume:
    values = dict(row._mapping)
    return Volume(
        name=VolumeName(values["name"]),
        size_mib=int(values["size_mib"]),
        created_at=float(values["created_at"]),
        app=values["app"] or "",
    )
