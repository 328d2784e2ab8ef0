"""Who may connect where: decided here, in pure functions, and asked by the broker alone.

A connection needs two yeses. The app's allow-list names the host and port. The address is public,
or the operator granted it: private networks, this machine and the cloud's metadata service are
reachable from a node and are not the tenants'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isopod.host import addresses
from isopod.host.addresses import Address
from isopod.model.network import EgressPolicy, Target, normal_name

DEFAULT_TENANT, EVERYBODY = "default", "*"


class Refused(Exception):
    """The text is for the app's author: which host, why, and what to write."""


@dataclass(frozen=True, slots=True)
class PrivateGrant:
    """An operator's: "postgres:5432" is the default tenant's, "acme/10.0.0.5:5432" acme's, and
    "*/cache:6379" everybody's."""

    tenant: str
    target: Target

    @staticmethod
    def parse(text: str) -> PrivateGrant:
        """Raises ValueError."""
        tenant, slash, target = text.partition("/")
        # "10.0.0.0/8:5432" has a slash too, and no tenant: tenants' names have no dot.
        if not slash or "." in tenant or ":" in tenant:
            tenant, target = DEFAULT_TENANT, text
        return PrivateGrant(tenant, Target.parse(target))

    def is_for(self, tenant: str) -> bool:
        return self.tenant in (EVERYBODY, tenant)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a guest asks for: a name in its normal form or an address. Port 0: any, for a look-up
    only."""

    host: str
    port: int
    address: Address | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host


def parse_wanted(host: str, port: int) -> Wanted:
    """Raises Refused for what is neither a name nor an address."""
    if not 0 <= port <= 65535:
        raise Refused(f"port {port} is not within 0 to 65535")
    address = addresses.parse(host)
    if address is None:
        try:
            host = normal_name(host)
        except ValueError as error:
            raise Refused(f"the host {host[:300]!r} {error}") from None
        # IDNA turns full-width digits and dots into plain ones.
        address = addresses.parse(host)
    return Wanted(host if address is None else str(address), port, address)


def check_listed(wanted: Wanted, allow: Sequence[Target]) -> None:
    """Raises Refused unless the app's manifest names it."""
    for target in allow:
        if wanted.port not in (0, target.port):
            continue
        if wanted.address is None:
            if target.holds_name(wanted.host):
                return
        elif target.holds_address(wanted.address):
            return
    example = Wanted(wanted.host, wanted.port or 443)
    raise Refused(
        f"this app may not connect to {str(wanted)!r}; to allow it, write in isopod.toml: "
        f'[network] allow = ["{example}"]'
    )


def check_bound(wanted: Wanted, bound: EgressPolicy) -> None:
    """Raises Refused unless the tenant may. `bound` is its operator's word, whatever an app of it
    lists."""
    if bound is None or any(rule.holds(wanted.host, wanted.address, wanted.port) for rule in bound):
        return
    raise Refused(
        f"no app of this tenant may connect to {str(wanted)!r}: the node's operator bounds what "
        f"they may list"
    )


def check_address(
    wanted: Wanted, address: Address, *, tenant: str, grants: Iterable[PrivateGrant]
) -> None:
    """Raises Refused for an address that is not public and not granted. `address` is what
    `wanted` stands for."""
    kind = addresses.special(address)
    if not kind:
        return
    for grant in grants:
        target = grant.target
        if not grant.is_for(tenant) or wanted.port not in (0, target.port):
            continue
        if target.holds_address(address):
            return
        # A name's owner chooses its addresses: one of the metadata service must be meant.
        if kind in (addresses.PRIVATE, addresses.LOOPBACK) and target.holds_name(wanted.host):
            return
    what = f"{wanted.host!r} is" if wanted.address else f"{wanted.host!r} resolves to"
    raise Refused(
        f"{what} {str(address)!r}, a {kind} address; only the node's operator can grant that "
        f"(egress_private in the node's settings)"
    )
