"""Where an app may connect to: the allow-list of its manifest, and the names in it.

`"api.openai.com:443"`, `"*.example.com:443"` (one label or more), `"postgres:5432"`,
`"203.0.113.7:443"`, `"[2001:db8::1]:443"`, `"203.0.113.0/24:443"`. The port is always said.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_A_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_TARGETS = 100


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
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
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
