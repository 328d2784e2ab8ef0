"""Members: the people (and machines) of a tenant who may hold its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select

from isopod.model.tenant import MemberName, TenantName
from isopod.state.apps import Connect
from isopod.state.tables import members


@dataclass(frozen=True, slots=True)
class Member:
    name: MemberName
    created_at: float


class Members:
    """The members of one tenant."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def get(self, name: MemberName) -> Member | None:
        mine = select(members).where(members.c.tenant == self._tenant, members.c.name == name)
        with self._reading() as db:
            row = db.execute(mine).one_or_none()
        return None if row is None else Member(MemberName(row.name), row.created_at)

    def count(self) -> int:
        mine = select(func.count()).where(members.c.tenant == self._tenant)
        with self._reading() as db:
            return int(db.execute(mine).scalar_one())

    def all(self) -> list[Member]:
        """By name."""
        found = select(members).where(members.c.tenant == self._tenant).order_by(members.c.name)
        with self._reading() as db:
            return [Member(MemberName(r.name), r.created_at) for r in db.execute(found)]

    def add(self, member: Member) -> None:
        values = {"name": member.name, "created_at": member.created_at}
        with self._writing() as db:
            db.execute(insert(members).values(tenant=self._tenant, **values))

    def delete(self, name: MemberName) -> None:
        mine = (members.c.tenant == self._tenant) & (members.c.name == name)
        with self._writing() as db:
            db.execute(delete(members).where(mine))

    def delete_all(self) -> None:
        with self._writing() as db:
            db.execute(delete(members).where(members.c.tenant == self._tenant))
