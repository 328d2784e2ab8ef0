"""Who asks: the first argument of every use case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from isopod.errors import Forbidden, TenantSuspended
from isopod.model.tenant import DEFAULT_TENANT, TenantName

# deploy: change apps; read: see them and their logs; usage: see what they used and cost;
# admin: members, tokens and the audit log of the tenant.
Scope = Literal["deploy", "read", "usage", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_LOOKING: frozenset[Scope] = frozenset({"read", "usage"})


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, and the one tenant it acts for in this request."""

    name: str  # the member's name, or "operator"
    tenant: TenantName = DEFAULT_TENANT
    scopes: frozenset[Scope] = frozenset()
    operator: bool = False  # holds the node's own token: may also manage tenants and the node
    token_id: str = ""  # "" for the node's own
    address: str = ""  # where the request came from; for the audit log
    suspended: bool = False  # its tenant is: it may look, and take rights away

    def need(self, scope: Scope, *, suspended_too: bool = False) -> None:
        """Raises Forbidden, or TenantSuspended where something would change. `suspended_too`: what
        only takes rights away, or looks."""
        if scope not in self.scopes:
            raise Forbidden(
                f"the token has no scope {scope!r}",
                details={"scope": scope, "scopes": sorted(self.scopes)},
            )
        if self.suspended and scope not in _LOOKING and not suspended_too:
            raise TenantSuspended("this tenant is suspended")

    def need_operator(self) -> None:
        """Raises Forbidden."""
        if not self.operator:
            raise Forbidden("only the node's operator may do this")


OPERATOR = Principal(name="operator", scopes=frozenset(SCOPES), operator=True)
