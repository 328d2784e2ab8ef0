"""/v1/tenants: for the node's operator."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from isopod.api.context import TheNode, Who, needs
from isopod.control.tenants import (
    TenantChange,
    TenantSummary,
    change_tenant,
    create_tenant,
    delete_tenant,
    get_tenant,
    list_tenants,
)
from isopod.model.tenant import Cordon, TenantName

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])


def _tenant_name(name: Annotated[str, Path(description="the tenant's name")]) -> TenantName:
    return TenantName.parse(name)


TheTenant = Annotated[TenantName, Depends(_tenant_name)]


class TenantList(BaseModel):
    tenants: list[TenantSummary]


class ChangeBody(BaseModel):
    """What is not named stays as it is."""

    quota: dict[str, int] = Field(default_factory=dict, description="0: no bound but the node's")
    cordon: Cordon | None = Field(
        None, description='"tenant": a worker process of its own for all of its apps'
    )
    egress: list[str] | None = Field(
        None,
        description='what its apps may list in [network] allow, such as "*.example.com:443", '
        '"*:443", "db:*"; ["any"]: all that is public, ["none"]: nothing',
    )
    suspended: bool | None = Field(None, description="its apps answer 403, its tokens only read")

    def change(self) -> TenantChange:
        return TenantChange(self.quota, self.cordon, self.suspended, self.egress)


class CreateBody(ChangeBody):
    name: str


class TenantDeleted(BaseModel):
    name: str
    deleted: bool


@router.get("", openapi_extra=needs("operator"))
async def tenants(who: Who, node: TheNode) -> TenantList:
    """Every tenant of the node."""
    return TenantList(tenants=await list_tenants(who, node=node))


@router.post("", openapi_extra=needs("operator"))
async def create(who: Who, node: TheNode, body: CreateBody) -> TenantSummary:
    """A name is given once: also that of a deleted tenant is taken."""
    return await create_tenant(who, TenantName.parse(body.name), body.change(), node=node)


@router.get("/{name}", openapi_extra=needs("operator"))
async def tenant(who: Who, node: TheNode, name: TheTenant) -> TenantSummary:
    """One tenant, its quota and how much there is of it."""
    return await get_tenant(who, name, node=node)


@router.patch("/{name}", openapi_extra=needs("operator"))
async def change(who: Who, node: TheNode, name: TheTenant, body: ChangeBody) -> TenantSummary:
    """Its quota, cordon or suspension; the workers follow at once."""
    return await change_tenant(who, name, body.change(), node=node)


@router.delete("/{name}", openapi_extra=needs("operator"))
async def delete(
    who: Who,
    node: TheNode,
    name: TheTenant,
    force: Annotated[bool, Query(description="with all its apps")] = False,
) -> TenantDeleted:
    """Its members, tokens and, by `force`, apps; its audit log and usage stay."""
    await delete_tenant(who, name, force=force, node=node)
    return TenantDeleted(name=name, deleted=True)
