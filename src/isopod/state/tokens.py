"""API tokens: who holds them, what they allow, and a hash of their secret part.

The secret is 256 random bits, so one round of sha256 keeps it: there is no dictionary to try, and
a slow hash, which passwords need, would only make each request slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import ColumnElement, Row, delete, func, insert, or_, select, update

from isopod.model.principal import SCOPES, Scope
from isopod.model.tenant import MemberName, TenantName
from isopod.state.apps import Connect
from isopod.state.tables import tokens


@dataclass(frozen=True, slots=True)
class Token:
    """Without its secret. Times are seconds since the epoch; None: never."""

    id: str
    tenant: TenantName
    member: MemberName
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None  # to the minute
    revoked_at: float | None = None

    def serves(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Tokens:
    """The tokens of one tenant."""

    def __init__(self, tenant: TenantName, reading: Connect, writing: Connect) -> None:
        self._tenant, self._reading, self._writing = tenant, reading, writing

    def get(self, token_id: str) -> Token | None:
        found = select(tokens).where(tokens.c.tenant == self._tenant, tokens.c.id == token_id)
        with self._reading() as db:
            row = db.execute(found).one_or_none()
        return None if row is None else _token(row)

    def all(self) -> list[Token]:
        """Newest first, with those that serve no more."""
        mine = select(tokens).where(tokens.c.tenant == self._tenant)
        with self._reading() as db:
            found = db.execute(mine.order_by(tokens.c.created_at.desc(), tokens.c.id))
            return [_token(row) for row in found]

    def add(self, token: Token, *, sha256: str) -> None:
        with self._writing() as db:
            db.execute(
                insert(tokens).values(
                    id=token.id,
                    tenant=self._tenant,
                    member=token.member,
                    sha256=sha256,
                    scopes=" ".join(sorted(token.scopes)),
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                )
            )

    def count(self, *, now: float) -> int:
        """Those that serve."""
        mine = select(func.count()).where(tokens.c.tenant == self._tenant, ~_ended(now))
        with self._reading() as db:
            return int(db.execute(mine).scalar_one())

    def forget_ended(self, *, before: float, keep: int, now: float) -> None:
        """Those that were revoked or expired before that, and all but the last `keep` of others."""
        ended_at = func.coalesce(tokens.c.revoked_at, tokens.c.expires_at)
        mine = (tokens.c.tenant == self._tenant) & _ended(now)
        newest = select(tokens.c.id).where(mine).order_by(ended_at.desc()).limit(keep)
        old = mine & ((ended_at < before) | tokens.c.id.not_in(newest))
        with self._writing() as db:
            db.execute(delete(tokens).where(old))

    def revoke(self, token_id: str, *, now: float) -> None:
        self._revoke(now, token_id=token_id)

    def revoke_of(self, member: MemberName, *, now: float) -> int:
        """All that the member holds; returns how many served until now."""
        return self._revoke(now, member=member)

    def revoke_all(self, *, now: float) -> int:
        return self._revoke(now)

    def _revoke(self, now: float, *, token_id: str = "", member: str = "") -> int:
        mine = update(tokens).where(tokens.c.tenant == self._tenant, tokens.c.revoked_at.is_(None))
        if token_id:
            mine = mine.where(tokens.c.id == token_id)
        if member:
            mine = mine.where(tokens.c.member == member)
        with self._writing() as db:
            return db.execute(mine.values(revoked_at=now)).rowcount


class AnyToken:
    """The guard's handle: a token says itself which tenant it is of."""

    def __init__(self, reading: Connect, writing: Connect) -> None:
        self._reading, self._writing = reading, writing

    def find(self, token_id: str) -> tuple[Token, str] | None:
        """The token, and the sha256 of its secret."""
        with self._reading() as db:
            row = db.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
        return None if row is None else (_token(row), row._mapping["sha256"])

    def used(self, token_id: str, *, now: float) -> None:
        with self._writing() as db:
            db.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=now))


def _ended(now: float) -> ColumnElement[bool]:
    return or_(tokens.c.revoked_at.is_not(None), tokens.c.expires_at <= now).is_(True)


def _token(row: Row[tuple[object, ...]]) -> Token:
    values = dict(row._mapping)
    del values["sha256"]
    known = (name for name in values.pop("scopes").split() if name in SCOPES)
    scopes = frozenset(cast("Scope", name) for name in known)
    tenant, member = TenantName(values.pop("tenant")), MemberName(values.pop("member"))
    return Token(tenant=tenant, member=member, scopes=scopes, **values)
