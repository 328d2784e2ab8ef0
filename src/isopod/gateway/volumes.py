"""Which worker an app with volumes runs in, and that one instance at a time has them.

A worker takes the leases of an app's volumes when a request for it arrives, and keeps them until it
has neither a request nor an instance of it any more. Requests that arrive at another worker
meanwhile are handed to this one. Within the worker, an instance waits for the one before it (of the
version before, or one that is about to end) to be gone.

While somebody copies a volume nobody has it, and requests wait at the worker that had it last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from isopod.errors import VolumeBusy, VolumeNotFound
from isopod.model.route import Route
from isopod.volumes.lease import COPIER, Lease, VolumeFolder, is_wanted, try_lease

_LOOK_S = 0.02
_PATIENCE_S = 10.0  # with another worker, which was asked to answer before


@dataclass(slots=True)
class _Held:
    """An app's volumes in this worker. `instance` is locked while one has them."""

    folders: tuple[VolumeFolder, ...]
    leases: list[Lease] = field(default_factory=list)
    instance: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0  # instances, for the one that has them

    def mount(self, folders: tuple[VolumeFolder, ...]) -> None:
        """Of another version, it may be, that mounts others."""
        if self.folders != folders:
            self.drop()
            self.folders = folders

    def drop(self) -> None:
        for lease in self.leases:
            lease.release()
        self.leases.clear()

    def wanted(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return any(is_wanted(folder) for folder in self.folders)
        return True  # one is gone, and the instance that has it is of nobody


class HeldVolumes:
    """The leases of one worker, by the app's label."""

    def __init__(self, root: Path, *, worker: int) -> None:
        self._root = root
        self._worker = worker
        self._held: dict[str, _Held] = {}

    def elsewhere(self, route: Route) -> int | None:
        """The other worker that has the app's volumes, or waits for them. None when this one does.
        VolumeNotFound."""
        if not route.volumes:
            return None
        holder = self._take(self._of(route))
        return None if holder in (None, COPIER, self._worker) else holder

    async def claim(self, route: Route) -> Callable[[], None]:
        """For an instance: returns when nobody else has the volumes. What it gives lets them go,
        and may be called twice. VolumeNotFound; VolumeBusy when another worker keeps them."""
        if not route.volumes:
            return lambda: None
        held = self._of(route)
        held.waiting += 1
        try:
            await held.instance.acquire()
        finally:
            held.waiting -= 1
        locked = True

        def release() -> None:
            nonlocal locked
            if locked:
                locked = False
                held.instance.release()

        try:
            # Not before: until now the leases were those of the version that ended.
            held.mount(self._folders(route))
            if held.wanted():
                held.drop()
            end = time.monotonic() + _PATIENCE_S
            while (holder := self._take(held)) is not None:
                if holder in (COPIER, self._worker):
                    end = time.monotonic() + _PATIENCE_S
                elif time.monotonic() > end:
                    raise VolumeBusy(f"another worker has the volumes of app {route.name!r}")
                await asyncio.sleep(_LOOK_S)
        except BaseException:
            release()
            raise
        return release

    def wanted(self, route: Route) -> bool:
        """Whether somebody waits to copy one, or an instance for this one's end: then none keeps
        them longer than it must."""
        held = self._held.get(route.name) if route.volumes else None
        return held is not None and bool(held.leases) and (held.waiting > 0 or held.wanted())

    def tidy(self, in_use: Collection[str]) -> None:
        """Let go of what nothing uses. `in_use`: the labels of apps that have requests or
        instances here."""
        for name, held in list(self._held.items()):
            if held.instance.locked():
                continue
            if name not in in_use:
                held.drop()
                del self._held[name]
            elif held.leases and held.wanted():
                held.drop()

    # ---------------------------------------------------------------------------------------

    def _of(self, route: Route) -> _Held:
        folders = self._folders(route)
        held = self._held.get(route.name)
        if held is None:
            held = self._held[route.name] = _Held(folders)
        elif not held.instance.locked():
            held.mount(folders)
        return held

    def _folders(self, route: Route) -> tuple[VolumeFolder, ...]:
        names = sorted(one.name for one in route.volumes)
        return tuple(VolumeFolder.of(self._root, route.tenant, name) for name in names)

    def _take(self, held: _Held) -> int | None:
        """None when they are all ours; else who has one, or is to have it next."""
        if held.leases:
            return None
        for folder in held.folders:
            try:
                taken = try_lease(folder, worker=self._worker)
            except FileNotFoundError:
                held.drop()
                raise VolumeNotFound(f"volume {folder.path.name!r} is gone") from None
            if not isinstance(taken, Lease):
                held.drop()
                return taken
            held.leases.append(taken)
        return None
