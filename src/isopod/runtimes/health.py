"""The result of the request that a new version must answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthResult:
    """The answer to the health request, and what the app printed until then."""

    status: int
    boot_ms: float
    request_ms: float
    output: str
