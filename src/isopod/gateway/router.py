"""From a Host header to an app's route: a pure look-up.

An app answers at its label, and at NAME--TENANT also where its label is the plain NAME: that
address is its tenant's own, and stays when somebody else takes the plain name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from isopod.model.route import Route

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def hostname_of(host_header: str) -> str:
    """The host without port and trailing dot, in lower case. "" when there is none."""
    host = host_header.strip().lower()
    if host.startswith("["):  # an IPv6 address names no app
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def app_name_of(hostname: str, domain: str) -> str | None:
    """`NAME` of `NAME.domain`; None for the domain itself, deeper names and strangers."""
    name, dot, rest = hostname.partition(".")
    if not dot or rest != domain or not _LABEL.fullmatch(name):
        return None
    return name


def route_of(label: str, find: Callable[[str], Route | None]) -> Route | None:
    """The route of the app that answers at `label`; `find` knows them by their labels."""
    route = find(label)
    name, two_hyphens, tenant = label.partition("--")
    if route is not None or not two_hyphens:
        return route
    plain = find(name)
    return plain if plain is not None and plain.tenant == tenant else None
