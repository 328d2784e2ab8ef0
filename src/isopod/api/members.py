"""/v1/members: who may hold a tenant's tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from isopod.api.context import TheNode, Who, needs
from isopod.control.members import MemberSummary, add_member, list_members, remove_member
from isopod.model.tenant import MemberName

router = APIRouter(prefix="/v1/members", tags=["members"])


def _member_name(name: Annotated[str, Path(description="the member's name")]) -> MemberName:
    return MemberName.parse(name)


TheMember = Annotated[MemberName, Depends(_member_name)]


class MemberList(BaseModel):
    members: list[MemberSummary]


class AddBody(BaseModel):
    name: str


class Removed(BaseModel):
    name: str
    tokens_revoked: int = Field(description="those that served until now")


@router.get("", openapi_extra=needs("admin"))
async def members(who: Who, node: TheNode) -> MemberList:
    """Every member of the tenant."""
    return MemberList(members=await list_members(who, node=node))


@router.post("", openapi_extra=needs("admin"))
async def add(who: Who, node: TheNode, body: AddBody) -> MemberSummary:
    """Somebody who may hold tokens; holds none yet."""
    return await add_member(who, MemberName.parse(body.name), node=node)


@router.delete("/{name}", openapi_extra=needs("admin"))
async def remove(who: Who, node: TheNode, name: TheMember) -> Removed:
    """The member, and every token that the member holds."""
    return Removed(name=name, tokens_revoked=await remove_member(who, name, node=node))
