"""API tokens: making, listing, revoking them, and finding out whose one is.

A token is `ip_ID_SECRET`. The id is public and finds the row; the secret is 256 random bits, of
which only the sha256 is kept (see `isopod.state.tokens`). It is shown once, when it is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from isopod.control.amounts import check_most, check_tenant
from isopod.control.audit import audited, entry
from isopod.control.node import Node
from isopod.errors import (
    DiskFull,
    Forbidden,
    MemberNotFound,
    StateBusy,
    TenantNotFound,
    TokenNotFound,
    Unauthorized,
    UsageError,
)
from isopod.model.principal import Principal, Scope
from isopod.model.tenant import MemberName, TenantName
from isopod.state.tokens import Token, Tokens

_TOKEN = re.compile(r"ip_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_MOST = 1000  # tokens of one tenant that serve; and as many that ended are still listed
_LISTED_S = 90 * 86_400.0  # what ended longer ago is forgotten; the audit log has it
_NOTE_USE_S = 60.0  # a token's last use is written at most so often
_NOBODY = "0" * 64  # what the secret of a token that is not there is compared with


@dataclass(frozen=True, slots=True)
class MadeToken:
    """The only time that the token itself is there to be read."""

    token: str
    about: Token


@dataclass(frozen=True, slots=True)
class WhoAmI:
    name: str
    tenant: str
    scopes: list[str]
    operator: bool
    token_id: str
    suspended: bool


async def whoami(who: Principal) -> WhoAmI:
    """Needs no scope."""
    return WhoAmI(
        name=who.name,
        tenant=who.tenant,
        scopes=sorted(who.scopes),
        operator=who.operator,
        token_id=who.token_id,
        suspended=who.suspended,
    )


async def create_token(
    who: Principal,
    member: MemberName,
    scopes: Collection[Scope],
    *,
    expires_in_s: float | None,
    node: Node,
) -> MadeToken:
    """None: it never expires. What a token makes ends no later than itself. MemberNotFound,
    QuotaExceeded; Forbidden for a scope that the caller has not."""
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)

    def keep() -> Token:
        now = node.clock()
        wanted = None if expires_in_s is None else now + expires_in_s
        with node.state.transaction() as t:
            check_tenant(who, t.node.tenants)
            mine = t.of(who.tenant)
            if mine.members.get(member) is None:
                raise MemberNotFound(f"there is no member {member!r}")
            mine.tokens.forget_ended(before=now - _LISTED_S, keep=_MOST, now=now)
            check_most("tokens", mine.tokens.count(now=now), _MOST)
            expires_at = _no_later(who, wanted, mine.tokens, now)
            made = Token(token_id, who.tenant, member, frozenset(scopes), now, expires_at)
            mine.tokens.add(made, sha256=_sha256(secret))
            about = {"member": member, "scopes": sorted(scopes), "expires_at": expires_at}
            mine.audit.add(entry(who, "token.create", token_id, now, details=about))
        return made

    async with audited(who, "token.create", member, node=node):
        who.need("admin")
        if not scopes:
            raise UsageError("a token needs at least one scope")
        more = sorted(set(scopes) - who.scopes)
        if more:
            raise Forbidden(
                f"a token cannot give the scope {more[0]!r}, which it has not itself",
                hint="ask a member whose token has it, or the node's operator",
            )
        made = await asyncio.to_thread(keep)
    return MadeToken(f"ip_{token_id}_{secret}", made)


def _no_later(who: Principal, at: float | None, mine: Tokens, now: float) -> float | None:
    """Than the caller's own token ends. Unauthorized when it did meanwhile."""
    if who.operator:
        return at
    own = mine.get(who.token_id)
    if own is None or not own.serves(now):
        raise Unauthorized("the token has expired or was revoked")
    if own.expires_at is None or at is None:
        return own.expires_at if at is None else at
    return min(at, own.expires_at)


async def list_tokens(who: Principal, *, node: Node) -> list[Token]:
    """Newest first, with those that were revoked or have expired in the last 90 days."""
    who.need("admin", suspended_too=True)
    return await asyncio.to_thread(node.state.of(who.tenant).tokens.all)


async def revoke_token(who: Principal, token_id: str, *, node: Node) -> None:
    """From now on. TokenNotFound, also when it is another tenant's."""

    def revoke() -> None:
        now = node.clock()
        with node.state.transaction() as t:
            mine = t.of(who.tenant)
            if mine.tokens.get(token_id) is None:
                raise TokenNotFound(f"there is no token {token_id[:80]!r}")
            mine.tokens.revoke(token_id, now=now)
            mine.audit.add(entry(who, "token.revoke", token_id, now))

    async with audited(who, "token.revoke", token_id, node=node):
        who.need("admin", suspended_too=True)
        await asyncio.to_thread(revoke)


def token_id_of(text: str) -> str:
    """The public part; "" for what is no token of a member."""
    found = _TOKEN.fullmatch(text)
    return found[1] if found else ""


def find_principal(
    text: str, *, asked_for: str | None, address: str, node: Node
) -> Principal | None:
    """Whose token `text` is; None when it is nobody's, has expired or was revoked. Blocks.

    `asked_for` names the tenant that the caller wants to act for: TenantNotFound for each but its
    own, whether it is there or not.
    """
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        return None
    found = node.state.node.tokens.find(parts[1])
    token, sha256 = found or (None, _NOBODY)
    right = hmac.compare_digest(_sha256(parts[2]), sha256)
    now = node.clock()
    if token is None or not right or not token.serves(now):
        return None
    tenant = node.state.node.tenants.get(token.tenant)
    if tenant is None:
        return None
    if asked_for is not None and asked_for != token.tenant:
        raise TenantNotFound(f"there is no tenant {asked_for[:80]!r}")
    if token.last_used_at is None or now - token.last_used_at >= _NOTE_USE_S:
        with suppress(DiskFull, StateBusy):  # no reason to refuse who only wants to read
            node.state.node.tokens.used(token.id, now=now)
    return Principal(
        name=token.member,
        tenant=token.tenant,
        scopes=token.scopes,
        token_id=token.id,
        address=address,
        suspended=tenant.suspended,
    )


def operator_for(name: str, operator: Principal, *, node: Node) -> Principal:
    """The operator, acting for tenant `name`. TenantNotFound. Blocks."""
    tenant = node.state.node.tenants.get(TenantName(name))
    if tenant is None:
        raise TenantNotFound(f"there is no tenant {name[:80]!r}")
    return replace(operator, tenant=tenant.name)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
