"""The uploaded artifact: a folder's files as one deterministic zstd tar, known by its digest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """What a package may hold, checked when it is made and again when it is opened."""

    max_files: int = 20_000  # files and folders
    max_mib: int = 200  # unpacked

    @property
    def max_bytes(self) -> int:
        return self.max_mib << 20
