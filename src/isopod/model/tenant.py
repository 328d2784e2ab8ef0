"""Tenants: the boundary of isolation and of the bill.

A tenant's name is its id: it is never given again, so a usage record always means the same
tenant. An app is named within its tenant; what the node knows it by is its *label* (see
`app_label`), which is also the first part of its host name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from isopod.errors import NameInvalid
from isopod.model.network import EgressPolicy, policy_from_json, policy_to_json

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

Cordon = Literal["shared", "tenant"]


class TenantName(str):
    """At most 32 characters of a DNS label (RFC 1123, lower case), without '--'."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _NAME.fullmatch(text) or "--" in text:
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise NameInvalid(
                f"tenant name {shown!r} is not a short DNS label",
                hint="use 1 to 32 of a-z, 0-9 and single '-', starting and ending with a letter "
                "or digit",
            )
        return cls(text)


_MEMBER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+@-]{0,62}[A-Za-z0-9])?")


class MemberName(str):
    """A person or a machine in a tenant, such as alice, alice@example.org or ci."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _MEMBER.fullmatch(text) or text.lower() == "operator":
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise NameInvalid(
                f"member name {shown!r} cannot be taken",
                hint="use 1 to 64 letters, digits and '.', '_', '+', '@', '-', starting and "
                "ending with a letter or digit; 'operator' is the node's own",
            )
        return cls(text)


# Whoever runs a node for themselves never meets another tenant than this one.
DEFAULT_TENANT = TenantName("default")


@dataclass(frozen=True, slots=True)
class Quota:
    """What all apps of one tenant may use of one node together. 0: no bound but the node's.

    Rates are refused with 429 and a `Retry-After`; amounts with 403 `quota_exceeded`.
    """

    apps: int = 0  # deployed at once
    max_instances: int = 0  # live at once, over all workers
    memory_mib: int = 0  # private memory of its live instances, over all workers
    cpu_s_per_day: int = 0  # guest CPU, UTC days
    storage_mib: int = 0  # packages, builds and images that its live apps name
    egress_mib_per_day: int = 0  # response bodies and headers, UTC days
    requests_per_s: int = 0  # sustained; a burst of one second's worth passes at once

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Quota:
        """Of any age: what a quota did not know yet has its default."""
        return Quota(**{name: int(body.get(name, 0)) for name in Quota.__slots__})


@dataclass(frozen=True, slots=True)
class Tenant:
    name: TenantName
    created_at: float = 0.0  # seconds since the epoch
    quota: Quota = Quota()
    cordon: Cordon = "shared"  # "tenant": a worker process of its own, for all its apps
    suspended: bool = False  # its apps answer 403, its tokens read only
    egress: EgressPolicy = None  # what bounds the lists of its apps' manifests

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "created_at": self.created_at,
            "quota": self.quota.to_json(),
            "cordon": self.cordon,
            "suspended": self.suspended,
            "egress": policy_to_json(self.egress),
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Tenant:
        return Tenant(
            name=TenantName(body["name"]),
            created_at=float(body.get("created_at", 0.0)),
            quota=Quota.from_json(body.get("quota", {})),
            cordon=body.get("cordon", "shared"),
            suspended=bool(body.get("suspended", False)),
            egress=policy_from_json(body.get("egress")),
        )


def name_of_label(label: str) -> str:
    """The app's name within its tenant."""
    return label.partition("--")[0]


def app_label(name: str, tenant: TenantName, *, plain: bool) -> str:
    """What the node knows an app by: "NAME" where it was the first of that name (`plain`), else
    "NAME--TENANT". Neither part holds "--", so no two apps share a label. NameInvalid when it is
    no DNS label any more."""
    label = name if plain else f"{name}--{tenant}"
    if len(label) > 63:
        raise NameInvalid(
            f"app {name!r} would answer at {label!r}, which is longer than 63 characters",
            hint="choose a shorter name",
        )
    return label
