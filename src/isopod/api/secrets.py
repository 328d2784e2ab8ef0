"""/v1/apps/{name}/secrets: names go out, values only in."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from isopod.api.context import TheApp, TheNode, Who, needs
from isopod.control.secrets import (
    SecretsChange,
    SecretsChanged,
    SecretSummary,
    change_secrets,
    list_secrets,
)
from isopod.model.secret import SecretName

router = APIRouter(prefix="/v1/apps/{name}/secrets", tags=["secrets"])


class SecretList(BaseModel):
    secrets: list[SecretSummary]


class ChangeBody(BaseModel):
    set: dict[str, str] = Field(default_factory=dict, description="name -> value", repr=False)
    unset: list[str] = Field(default_factory=list, description="names; each must be there")


@router.get("", openapi_extra=needs("read"))
async def secrets(who: Who, node: TheNode, name: TheApp) -> SecretList:
    """The names of the app's secrets; nothing gives their values."""
    return SecretList(secrets=await list_secrets(who, name, node=node))


@router.patch("", openapi_extra=needs("deploy"))
async def change(who: Who, node: TheNode, name: TheApp, body: ChangeBody) -> SecretsChanged:
    """All of it or nothing. The app's instances are replaced; an app that is not deployed yet is
    tried with them when it is."""
    values: dict[str, str] = {SecretName.parse(secret): value for secret, value in body.set.items()}
    return await change_secrets(who, name, SecretsChange(values, body.unset), node=node)
