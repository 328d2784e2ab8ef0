"""From a Host header to an app's name: a pure look-up."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def hostname_of(host_header: str) -> str:
    """The host without port and trailing dot, in lower case. "" when there is none."""
    host = host_header.strip().lower()
    if host.startswith("["):  # an IPv6 address names no app
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def app_name_of(hostname: str, domain: str) -> str | None:
    """`NAME` of `NAME.domain`; None for the domain itself, deeper names and strangers."""
    name, dot, rest = hostname.partition(".")
    if not dot or rest != domain or not _LABEL.fullmatch(name):
        return None
    return name
