"""A folder that outlives instances: which volume an app wants, and where it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """One [[volumes]] of a manifest. `mount`: an absolute path in the guest, such as "/data"."""

    name: str
    mount: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> VolumeMount:
        return VolumeMount(str(body["name"]), str(body["mount"]))
