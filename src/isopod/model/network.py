"""Where an app may connect to: the allow-list of its manifest, and the names in it.

`"api.openai.com:443"`, `"*.example.com:443"` (one label or more), `"postgres:5432"`,
`"203.0.113.7:443"`, `"[2001:db8::1]:443"`, `"203.0.113.0/24:443"`. The port is always said.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_A_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_TARGETS = 100
ANY_HOST, ANY_PORT = "*", 0


def normal_name(text: str) -> str:
    """A host name as it is looked up and compared: lower case, IDNA, no dot at the end. Raises
    ValueError saying what it has to be.

    A name whose last label is a number is none (WHATWG URL 3.5): what is meant is an address in a
    form (decimal, octal, hexadecimal, short) that every reader understands in its own way.
    """
    try:
        name = text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError("must be a host name") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("must be a host name")
    if _A_NUMBER.fullmatch(labels[-1]):
        raise ValueError("must be a host name or an address in its usual form")
    return name


@dataclass(frozen=True, slots=True)
class Target:
    """One entry. `host`: a normal name, "*." and one, or addresses as "10.0.0.5/32"."""

    host: str
    port: int
    addresses: bool = False

    @staticmethod
    def parse(text: str) -> Target:
        """Raises ValueError saying what it has to be."""
        host, colon, port = text.rpartition(":")
        if not colon or "://" in text or not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError('must be "host:port", such as "api.example.com:443"')
        bare = host.removeprefix("[").removesuffix("]")
        if ":" in bare and host != f"[{bare}]":
            raise ValueError('must have an IPv6 address in brackets, such as "[2001:db8::1]:443"')
        if "%" in bare:
            raise ValueError("must have an address without a zone")
        try:
            network = ipaddress.ip_network(bare)
        except ValueError:
            if "/" in bare or host != bare:
                raise ValueError(f"has {bare!r}, which is no network or address") from None
        else:
            if mapped := getattr(network.network_address, "ipv4_mapped", None):
                raise ValueError(f"has an IPv4 address in IPv6 form: write {str(mapped)!r}")
            return Target(str(network), int(port), addresses=True)
        wild = host.startswith("*.")
        name = normal_name(host.removeprefix("*."))
        if wild and "." not in name:
            raise ValueError('must have two labels or more after "*.", such as "*.example.com:443"')
        return Target(f"*.{name}" if wild else name, int(port))

    def __str__(self) -> str:
        if not self.addresses:
            return f"{self.host}:{self.port}"
        single = self.host.removesuffix("/128" if ":" in self.host else "/32")
        return f"[{single}]:{self.port}" if ":" in single else f"{single}:{self.port}"

    def covers(self, other: Target) -> bool:
        """Whether all that `other` allows is allowed by this."""
        if (self.port, self.addresses) != (other.port, other.addresses):
            return False
        if not self.addresses:
            bare = other.host.removeprefix("*.")
            # "*.a.b" holds "*.x.a.b", and not "a.b" itself.
            return self.host == other.host or (self.host[0] == "*" and self.holds_name(bare))
        mine, its = ipaddress.ip_network(self.host), ipaddress.ip_network(other.host)
        return (
            mine.version == its.version
            and int(mine.network_address) <= int(its.network_address)
            and int(mine.broadcast_address) >= int(its.broadcast_address)
        )

    def holds_name(self, name: str) -> bool:
        """`name` in its normal form."""
        if self.addresses:
            return False
        return name.endswith(self.host[1:]) if self.host[0] == "*" else name == self.host

    def holds_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if not self.addresses:
            return False
        network = ipaddress.ip_network(self.host)
        return network.version == address.version and address in network


@dataclass(frozen=True, slots=True)
class NetworkGrant:
    """The manifest's [network]. Nothing is allowed that is not listed."""

    allow: tuple[Target, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"allow": [str(one) for one in self.allow]}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> NetworkGrant:
        return NetworkGrant(tuple(Target.parse(str(one)) for one in body.get("allow", ())))


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of what an operator lets a tenant's apps list: as a `Target`, and also "*:443" (any
    host), "db.example.com:*" (any port) and "*:*"."""

    host: str  # as a Target's, or ANY_HOST: names and addresses
    port: int  # ANY_PORT: every
    addresses: bool = False

    @staticmethod
    def parse(text: str) -> EgressRule:
        """Raises ValueError saying what it has to be."""
        host, _, port = text.rpartition(":")
        any_port = port == "*"
        if host == "*" and (any_port or (_PORT.fullmatch(port) and int(port) <= 65535)):
            return EgressRule(ANY_HOST, ANY_PORT if any_port else int(port))
        target = Target.parse(f"{host}:1" if any_port else text)
        return EgressRule(target.host, ANY_PORT if any_port else target.port, target.addresses)

    def __str__(self) -> str:
        if self.host == ANY_HOST:
            return f"*:{self.port or '*'}"
        text = str(Target(self.host, self.port or 1, self.addresses))
        return text if self.port else f"{text.removesuffix('1')}*"

    def covers(self, target: Target) -> bool:
        """Whether all that `target` allows is within this."""
        if self.port not in (ANY_PORT, target.port):
            return False
        return self.host == ANY_HOST or self._at(target.port).covers(target)

    def holds(
        self, name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int
    ) -> bool:
        """`name` in its normal form, else `address`. Port 0: of a look-up, any."""
        if port and self.port not in (ANY_PORT, port):
            return False
        if self.host == ANY_HOST:
            return True
        target = self._at(port or 1)
        return target.holds_name(name) if address is None else target.holds_address(address)

    def _at(self, port: int) -> Target:
        return Target(self.host, port, self.addresses)


# None: all that is public; (): nothing.
EgressPolicy = tuple[EgressRule, ...] | None


def policy_to_json(policy: EgressPolicy) -> list[str] | None:
    return None if policy is None else [str(rule) for rule in policy]


def policy_from_json(body: Sequence[str] | None) -> EgressPolicy:
    """Raises ValueError."""
    if body is None:
        return None
    return tuple(dict.fromkeys(EgressRule.parse(str(one)) for one in body))
