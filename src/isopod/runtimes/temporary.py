"""A folder that one guest writes to, whatever its language."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from isopod.engine.removal import remove_folder
from isopod.errors import disk_full_is_clear


class TemporaryFolder:
    """A guest's /tmp on the host, gone with `remove`."""

    def __init__(self, root: Path) -> None:
        with disk_full_is_clear(str(root)):
            self.path = Path(tempfile.mkdtemp(prefix="tmp-", dir=root))
        self.made_at = time.monotonic()

    def remove(self) -> None:
        remove_folder(self.path)
