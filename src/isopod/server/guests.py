"""How a worker makes a guest for a route: its trees, its /tmp, its image if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isopod.blobs.images import ImageCache, OpenImage
from isopod.blobs.trees import TreeCache
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppStarting,
    CommandUnsupported,
    FilesUnreadable,
    IsopodError,
    RuntimeNotPrepared,
)
from isopod.host.capabilities import World
from isopod.model.ids import Digest
from isopod.model.route import Route
from isopod.model.volume import MountedVolume
from isopod.runtimes.base import GuestOrder, Guests, LentVolume, LoadsModules, RunsCommands
from isopod.runtimes.guest import Guest, OutputSink
from isopod.runtimes.temporary import TemporaryFolder
from isopod.volumes.lease import VolumeFolder
from isopod.volumes.size import folder_bytes

# Images held open, each a descriptor and a lock that keeps its file in the cache.
_MAX_OPEN_IMAGES = 512
# An image that could not be had is not asked for again for so long: plain boots serve.
_RETRY_S = 30.0
# Machine code is made before a version goes live; what was removed since, or is of another engine,
# is made again while its first request waits. Below what a boot may take, which the app is to blame
# for (`gateway.app_pool`).
_LOADED_WITHIN_S = 45.0


@dataclass(slots=True)
class _Held:
    """An open image, and how many guests are mapped from it or are about to be. Its descriptor's
    number could be another app's image as soon as it is closed."""

    image: OpenImage
    users: int = 0
    dropped: bool = False

    def release(self) -> None:
        self.users -= 1
        self.close_if_unused()

    def drop(self) -> None:
        self.dropped = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.dropped and self.users <= 0:
            self.image.close()


class GuestMaker:
    """Fulfils `isopod.gateway.slot.MakeGuest`."""

    def __init__(
        self,
        *,
        runtimes: Mapping[str, Guests],
        scheduler: Scheduler,
        trees: TreeCache,
        images: ImageCache,
        tmp_root: Path,
        world: World,
        secrets: Callable[[Route], Awaitable[Mapping[str, str]]],
        volumes_dir: Path,
    ) -> None:
        """`secrets` gives an app's, opened."""
        self._runtimes = runtimes
        self._secrets = secrets
        self._volumes_dir = volumes_dir
        self._world = world
        self._scheduler = scheduler
        self._trees = trees
        self._images = images
        self._tmp_root = tmp_root
        self._open: OrderedDict[Digest, _Held] = OrderedDict()
        self._failed: dict[Digest, float] = {}
        # Of images that were made ready in the background: version -> lines for its app's log.
        self._unsaid: dict[Digest, list[bytes]] = {}
        self._untold: set[Digest] = set()  # failed, and control has not asked since
        self._tasks: set[asyncio.Task[None]] = set()

    async def command(
        self, route: Route, output: OutputSink, *, words: tuple[str, ...], known_as: str
    ) -> tuple[Guest, Callable[[], None]]:
        """See `isopod.gateway.jobs.MakeCommand`. CommandUnsupported."""
        runtime = self._runtimes.get(route.spec.runtime)
        if not isinstance(runtime, RunsCommands):
            raise CommandUnsupported(f"apps of the runtime {route.spec.runtime!r} run no commands")
        app_tree = await self._tree(route.app_tree)
        site_tree = await self._tree(route.site_tree)
        secrets = await self._secrets(route)
        volumes = tuple([await self._volume(route, one) for one in route.volumes])
        tmp = TemporaryFolder(self._tmp_root)
        try:
            order = self._order(route, output, app_tree, site_tree, secrets, tmp)
            order = replace(order, command=words, app=known_as, volumes=volumes)
            guest = runtime.new_command(order)
        except BaseException:
            tmp.remove()
            raise
        return guest, functools.partial(_remove_soon, tmp)

    async def __call__(self, route: Route, output: OutputSink) -> tuple[Guest, Callable[[], None]]:
        runtime = self._runtime_of(route)
        app_tree = await self._tree(route.app_tree)
        site_tree = await self._tree(route.site_tree)
        secrets = await self._secrets(route)
        volumes = tuple([await self._volume(route, one) for one in route.volumes])
        loaded = await _load(runtime, app_tree, site_tree, route)  # held until there is a guest
        held = await self._image(route, runtime, output)
        for line in self._unsaid.pop(route.digest, ()):
            output("isopod", line)
        image = None
        if held is not None:
            held.users += 1
            image = Image(held.image.fd, held.image.size, held.image.clock_ns)
        tmp = TemporaryFolder(self._tmp_root)
        try:
            order = self._order(route, output, app_tree, site_tree, secrets, tmp)
            guest = runtime.new_guest(replace(order, image=image, volumes=volumes))
        except BaseException:
            tmp.remove()
            if held is not None:
                held.release()
            raise
        del loaded

        def remove() -> None:
            nonlocal held
            if held is not None:
                held.release()
                held = None
            _remove_soon(tmp)

        return guest, remove

    def _order(
        self,
        route: Route,
        output: OutputSink,
        app_tree: Path,
        site_tree: Path,
        secrets: Mapping[str, str],
        tmp: TemporaryFolder,
    ) -> GuestOrder:
        """Without an image."""
        return GuestOrder(
            scheduler=self._scheduler,
            app_tree=app_tree,
            site_tree=site_tree,
            tmp=tmp.path,
            entrypoint=route.spec.entrypoint,
            env={**route.spec.env, **secrets} if secrets else route.spec.env,
            memory_mib=route.spec.limits.memory_mib,
            disk_mib=route.spec.limits.disk_mib,
            output=output,
            image=None,
            after_restore=route.spec.startup.after_restore,
            share=(route.tenant, route.name),
            world=self._world,
            app=route.name,
        )

    def make_ready(self, route: Route) -> None:
        """Verify a new version's trees and image now, in the background: its first request shall
        not wait for that. What fails will be told by that request."""

        async def ready() -> None:
            if route.snapshot is not None:  # it may be mended
                self._failed.pop(route.snapshot.image, None)
            with contextlib.suppress(IsopodError):
                app_tree = await self._tree(route.app_tree)
                site_tree = await self._tree(route.site_tree)
                said = self._unsaid.setdefault(route.digest, [])
                runtime = self._runtime_of(route)
                await _load(runtime, app_tree, site_tree, route)
                await self._image(route, runtime, lambda _stream, data: said.append(data))
            if not self._unsaid.get(route.digest):
                self._unsaid.pop(route.digest, None)

        task = asyncio.get_running_loop().create_task(ready())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def keep_images(self, wanted: set[Digest]) -> None:
        """Close every other image that is held open: a node that is deployed to for months must
        not hold the images of all replaced versions. One that is asked for again is opened
        again, without being hashed again."""
        for digest in [digest for digest in self._open if digest not in wanted]:
            self._open.pop(digest).drop()

    def take_failed_images(self) -> list[Digest]:
        """Images that could not be had since the last call: control looks after their blobs."""
        failed, self._untold = sorted(self._untold), set()
        return failed

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for held in self._open.values():
            held.drop()
        self._open.clear()

    async def _tree(self, digest: Digest) -> Path:
        # In a thread: the first use of a tree extracts or verifies it.
        ready = self._trees.ready(digest)
        return ready if ready else await asyncio.to_thread(self._trees.ensure, digest)

    async def _volume(self, route: Route, one: MountedVolume) -> LentVolume:
        folder = VolumeFolder.of(self._volumes_dir, route.tenant, one.name).data
        # In a thread: it may hold a million files.
        used_bytes = await asyncio.to_thread(folder_bytes, folder)
        return LentVolume(folder, one.mount, one.size_mib << 20, used_bytes)

    def _runtime_of(self, route: Route) -> Guests:
        found = self._runtimes.get(route.spec.runtime)
        if found is None:
            raise RuntimeNotPrepared(
                f"the runtime {route.spec.runtime!r} is not prepared in this worker",
                hint="run `isopod runtimes prepare NAME`, then start the node again",
            )
        return found

    async def _image(self, route: Route, runtime: Guests, output: OutputSink) -> _Held | None:
        snapshot = route.snapshot
        # An image of another runtime is not one of this: control makes a new one.
        if snapshot is None or not snapshot.image or snapshot.runtime != runtime.image_digest:
            return None
        digest = snapshot.image
        held = self._open.get(digest)
        if held is not None and not held.image.intact():
            self._open.pop(digest).drop()
            self._images.delete(digest)
            _tell(output, f"image {digest!r} was written to while it was in use")
            held = None
        if held is None:
            held = await self._open_image(digest, runtime, output)
        if held is not None:
            self._open.move_to_end(digest)
        return held

    async def _open_image(
        self, digest: Digest, runtime: Guests, output: OutputSink
    ) -> _Held | None:
        if time.monotonic() - self._failed.get(digest, -_RETRY_S) < _RETRY_S:
            return None
        try:
            opened = await asyncio.to_thread(self._images.open, digest, runtime.base_image)
        except (IsopodError, OSError) as error:
            # The app is served all the same, only slower; who can mend it reads this.
            self._failed[digest] = time.monotonic()
            if not isinstance(error, FilesUnreadable):  # there is nothing to mend
                self._untold.add(digest)
            code = error.code if isinstance(error, IsopodError) else "os_error"
            _tell(output, f"{code}: {error}; starting without it")
            return None
        if opened.mended:
            _tell(output, f"image {digest!r} was damaged ({opened.mended}); made again")
        if digest in self._open:  # another start was first
            opened.close()
            return self._open[digest]
        held = self._open[digest] = _Held(opened)
        while len(self._open) > _MAX_OPEN_IMAGES:
            self._open.popitem(last=False)[1].drop()
        return held


async def _load(runtime: Guests, app_tree: Path, site_tree: Path, route: Route) -> object:
    if not isinstance(runtime, LoadsModules):
        return None
    module = runtime.module(app_tree, site_tree, route.spec.entrypoint)
    try:
        async with asyncio.timeout(_LOADED_WITHIN_S):
            return await runtime.load(module, route.tenant)
    except TimeoutError:  # it goes on, for those who come next
        raise AppStarting(
            f"the module of app {route.name!r} is still being compiled",
            hint="try again in a while: it is compiled once, and other modules may be before it",
        ) from None


def _remove_soon(tmp: TemporaryFolder) -> None:
    with contextlib.suppress(OSError):
        tmp.path.rmdir()
        return
    # In a thread: an app may have left a million files.
    asyncio.get_running_loop().run_in_executor(None, tmp.remove)


def _tell(output: OutputSink, line: str) -> None:
    output("isopod", f"{line}\n".encode())
