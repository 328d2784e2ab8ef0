"""What the doctor says of one thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

# problem: do something before strangers' code runs here. warning: weaker than it could be.
Status = Literal["ok", "warning", "problem"]
_ORDER: tuple[Status, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True, slots=True)
class Check:
    area: str  # "versions", "advisories", "kernel", "files", "limits", "machine"
    name: str
    status: Status
    text: str
    advice: str = ""  # what to do; "" when nothing is wrong

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def worst(checks: Iterable[Check]) -> Status:
    return max((check.status for check in checks), key=_ORDER.index, default="ok")
