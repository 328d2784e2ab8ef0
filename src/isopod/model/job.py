"""Work that an app does by the clock: one [[jobs]] of its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """A request to `path`, or `command` in an instance of its own: one of the two."""

    name: str
    schedule: str  # cron, five fields, UTC
    path: str = ""
    command: str = ""
    timeout_s: float = 300.0
    retries: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Job:
        return Job(**body)
