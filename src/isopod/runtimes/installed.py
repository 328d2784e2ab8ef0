"""What the installation of an app's dependencies left."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from isopod.model.ids import Digest


@dataclass(frozen=True, slots=True)
class Installed:
    """`distributions`: (name, version), sorted, with those of the runtime that are in use.
    `fingerprint` is equal for equal files. `text` says what was done, for people."""

    distributions: tuple[tuple[str, str], ...]
    fingerprint: Digest
    text: str

    @staticmethod
    def nothing(site: Path) -> Installed:
        """For an app that asks for nothing; `site` is empty then."""
        site.mkdir()
        return Installed((), Digest(hashlib.sha256().hexdigest()), "None")
