"""Who asks: the first argument of every use case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller. One operator owns the node for now; tenants narrow this later."""

    name: str


OPERATOR = Principal(name="operator")
