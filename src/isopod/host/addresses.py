"""What kind of address an address is, whatever it is wrapped in.

A table of our own, not `ipaddress.is_global`: that differs between Python's patch releases, and
knows nothing of addresses inside addresses. Sources: IANA's special-purpose address registries
(RFC 6890 and its updates), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 5214 (ISATAP), RFC 4380 (Teredo).
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Of these an operator may grant a name; of all others only the address itself.
PRIVATE, LOOPBACK = "private", "loopback"
_METADATA = "cloud metadata"

_TABLE: tuple[tuple[str, str], ...] = (
    # The first that holds the address counts.
    ("169.254.169.254/32", _METADATA),
    ("169.254.170.2/32", _METADATA),  # of containers
    ("100.100.100.200/32", _METADATA),
    ("192.0.0.192/32", _METADATA),
    ("168.63.129.16/32", _METADATA),
    ("fd00:ec2::/32", _METADATA),
    ("fd20:ce::254/128", _METADATA),
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", PRIVATE),  # carrier-grade NAT
    ("127.0.0.0/8", LOOPBACK),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "reserved"),
    ("192.31.196.0/24", "reserved"),
    ("192.52.193.0/24", "reserved"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", PRIVATE),
    ("192.175.48.0/24", "reserved"),
    ("198.18.0.0/15", PRIVATE),  # benchmarking: some clusters use it inside
    ("198.51.100.0/24", "reserved"),
    ("203.0.113.0/24", "reserved"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),  # with broadcast
    ("::/128", "unspecified"),
    ("::1/128", LOOPBACK),
    ("64:ff9b:1::/48", PRIVATE),  # NAT64 of this network's own
    ("100::/64", "reserved"),
    ("100:0:0:1::/64", "reserved"),
    ("2001::/32", "reserved"),  # Teredo: the real end is hidden in it
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "reserved"),
    ("2620:4f:8000::/48", "reserved"),
    ("3fff::/20", "reserved"),
    ("5f00::/16", "reserved"),
    ("fc00::/7", PRIVATE),
    ("fe80::/10", "link-local"),
    ("fec0::/10", PRIVATE),  # site-local, deprecated
    ("ff00::/8", "multicast"),
)
_KINDS = tuple((ipaddress.ip_network(text), kind) for text, kind in _TABLE)
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_IN_THE_LAST_BITS = (
    _NAT64,
    IPv6Network("::/96"),  # "IPv4-compatible"
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::ffff:0:0:0/96"),  # "IPv4-translated", RFC 2765
)
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = (0x00005EFE, 0x02005EFE)


def parse(text: str) -> Address | None:
    """An address in its usual form, or None. Without a zone: that is for the link."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(found, "scope_id", None) else plain(found)


def plain(address: Address) -> Address:
    """An IPv4-mapped address is the IPv4 one."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def special(address: Address) -> str:
    """What is special about it, or about the one that it leads to; "" for a public address."""
    address = plain(address)
    if isinstance(address, IPv6Address):
        for inner in _inside(address):
            if kind := special(inner):
                return kind
    for network, kind in _KINDS:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 and address not in _NAT64:
        return "reserved"
    return ""


def _inside(address: IPv6Address) -> list[IPv4Address]:
    value = int(address)
    found = []
    if any(address in network for network in _IN_THE_LAST_BITS) and value > 1:
        found.append(IPv4Address(value & 0xFFFFFFFF))
    if address in _SIX_TO_FOUR:
        found.append(IPv4Address(value >> 80 & 0xFFFFFFFF))
    if value >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(IPv4Address(value & 0xFFFFFFFF))
    return found
