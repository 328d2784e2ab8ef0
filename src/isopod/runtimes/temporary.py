"""A folder that one guest writes to, whatever its language; and what stands for its volumes while
it is built."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from isopod.errors import disk_full_is_clear
from isopod.model.app import AppSpec
from isopod.runtimes.base import LentVolume
from isopod.volumes.removal import remove_folder


def scratch_volumes(spec: AppSpec, folder: Path) -> tuple[LentVolume, ...]:
    """In the place of the app's volumes, which no build sees: empty folders in `folder`, gone with
    it. An instance must have the same folders in the same order wherever its memory goes on."""
    lent = []
    for number, mount in enumerate(spec.volumes):
        path = folder / f"volume-{number}"
        path.mkdir(mode=0o700)
        size_bytes = spec.limits.disk_mib << 20
        lent.append(LentVolume(path, mount.mount, size_bytes, 0))
    return tuple(lent)


class TemporaryFolder:
    """A guest's /tmp on the host, gone with `remove`."""

    def __init__(self, root: Path) -> None:
        with disk_full_is_clear(str(root)):
            self.path = Path(tempfile.mkdtemp(prefix="tmp-", dir=root))
        self.made_at = time.monotonic()

    def remove(self) -> None:
        remove_folder(self.path)
