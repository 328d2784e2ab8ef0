"""A language runtime as a node lists it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isopod.model.ids import Digest


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    name: str
    version: str  # the language's
    digest: Digest  # of everything a build depends on
    size_bytes: int  # of the compiled module, or of the module while it is not prepared
    prepared: bool  # compiled and ready on this machine
    licence: str
    module: str = ""  # digest of the module that is compiled; "": its apps bring theirs, or none

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
