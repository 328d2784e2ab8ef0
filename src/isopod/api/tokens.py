"""/v1/tokens and /v1/whoami: a tenant's tokens, and what one allows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from isopod.api.context import TheNode, Who, needs
from isopod.control.tokens import WhoAmI, create_token, list_tokens, revoke_token, whoami
from isopod.model.principal import Scope
from isopod.model.tenant import MemberName
from isopod.state.tokens import Token

router = APIRouter(prefix="/v1", tags=["tokens"])
_DEFAULT_S = 90 * 86_400.0
_LONGEST_S = 10 * 366 * 86_400.0


class TokenShown(BaseModel):
    """All but the token itself. Times are seconds since the epoch; none: never."""

    id: str
    member: str
    scopes: list[str]
    created_at: float
    expires_at: float | None
    last_used_at: float | None = Field(description="to the minute")
    revoked_at: float | None


class TokenList(BaseModel):
    tokens: list[TokenShown]


class CreateBody(BaseModel):
    member: str
    scopes: list[Scope] = Field(min_length=1)
    expires_in_s: float | None = Field(_DEFAULT_S, ge=1, le=_LONGEST_S, description="none: never")


class TokenMade(TokenShown):
    token: str = Field(description="shown this once")


class Revoked(BaseModel):
    id: str
    revoked: bool


@router.get("/whoami", openapi_extra=needs("any"))
async def who_am_i(who: Who) -> WhoAmI:
    """Whose token this is, and what it allows."""
    return await whoami(who)


@router.get("/tokens", openapi_extra=needs("admin"))
async def tokens(who: Who, node: TheNode) -> TokenList:
    """The tenant's tokens, newest first, without their secrets."""
    found = await list_tokens(who, node=node)
    return TokenList(tokens=[TokenShown(**_shown(token)) for token in found])


@router.post("/tokens", openapi_extra=needs("admin"))
async def create(who: Who, node: TheNode, body: CreateBody) -> TokenMade:
    """A token for a member, with no scope that the caller has not."""
    made = await create_token(
        who,
        MemberName.parse(body.member),
        frozenset(body.scopes),
        expires_in_s=body.expires_in_s,
        node=node,
    )
    return TokenMade(token=made.token, **_shown(made.about))


@router.delete("/tokens/{id}", openapi_extra=needs("admin"))
async def revoke(
    who: Who, node: TheNode, id: Annotated[str, Path(description="its public part")]
) -> Revoked:
    """From now on it is worth nothing."""
    await revoke_token(who, id, node=node)
    return Revoked(id=id, revoked=True)


def _shown(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "member": token.member,
        "scopes": sorted(token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }
