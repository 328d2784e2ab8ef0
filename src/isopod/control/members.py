"""Members of a tenant: who may hold its tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from isopod.control.amounts import check_most, check_tenant
from isopod.control.audit import audited, entry
from isopod.control.node import Node
from isopod.errors import MemberNotFound, NameTaken
from isopod.model.principal import Principal
from isopod.model.tenant import MemberName
from isopod.state.members import Member

_MOST = 1000  # of one tenant


@dataclass(frozen=True, slots=True)
class MemberSummary:
    name: str
    created_at: float
    tokens: int  # that serve now


async def list_members(who: Principal, *, node: Node) -> list[MemberSummary]:
    """By name."""
    who.need("admin", suspended_too=True)

    def read() -> list[MemberSummary]:
        mine, now = node.state.of(who.tenant), node.clock()
        holders = [token.member for token in mine.tokens.all() if token.serves(now)]
        return [
            MemberSummary(one.name, one.created_at, holders.count(one.name))
            for one in mine.members.all()
        ]

    return await asyncio.to_thread(read)


async def add_member(who: Principal, name: MemberName, *, node: Node) -> MemberSummary:
    """NameTaken, QuotaExceeded."""

    def add() -> MemberSummary:
        now = node.clock()
        with node.state.transaction() as t:
            check_tenant(who, t.node.tenants)
            mine = t.of(who.tenant)
            if mine.members.get(name) is not None:
                raise NameTaken(f"there is a member {name!r} already")
            check_most("members", mine.members.count(), _MOST)
            mine.members.add(Member(name, now))
            mine.audit.add(entry(who, "member.add", name, now))
        return MemberSummary(name, now, 0)

    async with audited(who, "member.add", name, node=node):
        who.need("admin")
        return await asyncio.to_thread(add)


async def remove_member(who: Principal, name: MemberName, *, node: Node) -> int:
    """With all tokens that the member holds; returns how many served. MemberNotFound."""

    def remove() -> int:
        now = node.clock()
        with node.state.transaction() as t:
            mine = t.of(who.tenant)
            if mine.members.get(name) is None:
                raise MemberNotFound(f"there is no member {name!r}")
            revoked = mine.tokens.revoke_of(name, now=now)
            mine.members.delete(name)
            mine.audit.add(
                entry(who, "member.remove", name, now, details={"tokens_revoked": revoked})
            )
        return revoked

    async with audited(who, "member.remove", name, node=node):
        who.need("admin", suspended_too=True)
        return await asyncio.to_thread(remove)
