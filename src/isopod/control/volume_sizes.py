"""How much volumes hold, without looking at every file for each who asks.

Nobody writes to a volume without its lease, and the lease counts its holders: what was measured
while nobody had it is true until somebody has had it. While an app uses it, what was measured
lately will do.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from isopod.model.tenant import TenantName
from isopod.volumes.lease import said_in
from isopod.volumes.places import Places
from isopod.volumes.size import FULL, folder_bytes
from isopod.volumes.walk import NO_LINK

_LATELY_S = 30.0


@dataclass(frozen=True, slots=True)
class _Measured:
    used_bytes: int
    epoch: int | None  # of the lease; None while somebody had it
    at: float


class VolumeSizes:
    """Safe to use from several threads."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[tuple[TenantName, str], _Measured] = {}
        # One walk of a tenant at a time: who asks again meanwhile waits for what that finds.
        self._locks: dict[TenantName, threading.Lock] = {}

    def used_bytes(self, tenant: TenantName, name: str) -> int:
        """Each file with 16 KiB at least. Blocks."""
        with self._locks.setdefault(tenant, threading.Lock()):
            before = self._known.get((tenant, name))
            try:
                volume = self._places.folder(tenant, name).open()
            except OSError:  # it is gone
                return FULL
            try:
                epoch = _epoch(volume)
                if before is not None and _holds(before, epoch):
                    return before.used_bytes
                used = folder_bytes(Path(f"/proc/self/fd/{volume}/data"))
                unchanged = epoch if epoch == _epoch(volume) else None
            finally:
                os.close(volume)
            self._known[tenant, name] = _Measured(used, unchanged, time.monotonic())
            return used

    def forget(self, tenant: TenantName, name: str | None = None) -> None:
        """A volume that was deleted, or all of a tenant's."""
        for key in [key for key in self._known if key[0] == tenant and name in (None, key[1])]:
            self._known.pop(key, None)
        if name is None:
            self._locks.pop(tenant, None)


def _holds(known: _Measured, epoch: int | None) -> bool:
    if epoch is not None and known.epoch == epoch:
        return True
    return epoch is None and time.monotonic() - known.at < _LATELY_S


def _epoch(volume: int) -> int | None:
    """Of the lease, while nobody has it. A worker may have put anything in its place."""
    try:
        fd = os.open("lease", NO_LINK, dir_fd=volume)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return said_in(fd)[1]
    except BlockingIOError:
        return None
    finally:
        os.close(fd)
