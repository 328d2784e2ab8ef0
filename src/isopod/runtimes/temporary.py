"""A folder that one guest writes to, whatever its language; and what stands for its volumes while
it is built."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import disk_full_is_clear
from isopod.model.app import AppSpec
from isopod.runtimes.base import LentVolume
from isopod.volumes.removal import remove_folder


class TemporaryFolder:
    """A guest's /tmp on the host, gone with `remove`."""

    def __init__(self, root: Path) -> None:
        with disk_full_is_clear(str(root)):
            self.path = Path(tempfile.mkdtemp(prefix="tmp-", dir=root))
        self.made_at = time.monotonic()

    def remove(self) -> None:
        remove_folder(self.path)


@dataclass(frozen=True, slots=True)
class Scratch:
    """What a guest may write to while its app is built. `volumes`: empty folders in the place of
    the app's, which no build sees."""

    tmp: Path
    volumes: tuple[LentVolume, ...]


@contextmanager
def scratch(spec: AppSpec, root: Path) -> Iterator[Scratch]:
    """For one guest; gone afterwards. Raises DiskFull."""
    folder = TemporaryFolder(root)
    try:
        with disk_full_is_clear(str(root)):
            tmp = folder.path / "tmp"
            tmp.mkdir(mode=0o700)
            volumes = _stand_ins(spec, folder.path)
        yield Scratch(tmp, volumes)
    finally:
        folder.remove()


def _stand_ins(spec: AppSpec, folder: Path) -> tuple[LentVolume, ...]:
    """An instance must have the same folders in the same order wherever its memory goes on."""
    lent = []
    for number, mount in enumerate(spec.volumes):
        path = folder / f"volume-{number}"
        path.mkdir(mode=0o700)
        size_bytes = spec.limits.disk_mib << 20
        lent.append(LentVolume(path, mount.mount, size_bytes, 0))
    return tuple(lent)
