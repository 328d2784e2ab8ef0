"""The image of a reactor that has run its setup and was warmed.

Its setup runs without settings, so an image has none. What a request reads cannot be seen from
outside: an app that has settings is not warmed, since it might keep what it made of one. Which
random numbers were drawn cannot be told from those that every program in Go draws as it starts:
so an image is its app's own, and each language's package seeds its generator again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image, write_sparse
from isopod.engine.linker import Linkage
from isopod.engine.memory import WASM_PAGE
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import AppFailedToStart, DiskFull, IsopodError, disk_full_is_clear
from isopod.model.app import AppSpec
from isopod.model.snapshot import Finding, Snapshot, plain
from isopod.runtimes.reactor import abi
from isopod.runtimes.reactor.runtime import BASE_IMAGE, image_digest, new_guest
from isopod.runtimes.reactor.serve import ReactorGuest
from isopod.runtimes.warming import Warmup, bounded, requests_of, warm

_BOOT_S = 60.0
_REQUEST_S = 10.0
_MAX_BYTES = 500 << 20


class Snapshots:
    """Of one app's module, in a builder."""

    def __init__(
        self, linkage: Linkage, *, app_tree: Path, spec: AppSpec, images: ImageCache, work: Path
    ) -> None:
        self._linkage = linkage
        self._app_tree = app_tree
        self._spec = spec
        self._images = images
        self._work = work
        self._tmp = work / "tmp"
        self._tmp.mkdir(exist_ok=True)

    def take(self, secrets: Mapping[str, str]) -> Snapshot:
        """Never raises for what the app does: a snapshot is a gain. Raises DiskFull."""
        if not self._spec.startup.snapshot:
            return plain("snapshots are off: [startup] snapshot = false")
        requests = requests_of(self._spec)
        findings: tuple[Finding, ...] = ()
        if requests and (self._spec.env or secrets):
            what = "the app has settings, and a warm-up request might keep one"
            findings, requests = (Finding("setting", what, ""),), []
        for warmup in (requests, []) if requests else ([],):
            image = self._work / "app.image"
            try:
                clock_ns = self._write(warmup, image)
                snapshot = self._keep(image, clock_ns, findings)
                self._try_out(snapshot, warmup)
            except DiskFull:
                raise
            except IsopodError as error:
                what = str(error.details.get("summary", "")) or error.message
                findings += (Finding("warm-up" if warmup else "boot", what, ""),)
                continue
            finally:
                image.unlink(missing_ok=True)
            return snapshot
        return plain("what it holds when it has started cannot be kept", findings)

    def _write(self, warmup: Warmup, out: Path) -> int:
        """The guest's clock then."""

        async def write(scheduler: Scheduler) -> int:
            guest = self._guest(scheduler, None)
            try:
                async with bounded(_BOOT_S, "the start"):
                    await guest.start()
                for request, body in warmup:
                    async with bounded(_REQUEST_S, f"the warm-up {request.method} {request.path}"):
                        await warm(guest, request, body)
                async with bounded(_BOOT_S, "the snapshot"):
                    await guest.keep_globals()
                instance = guest.instance
                if instance.files.open_count:
                    raise AppFailedToStart("the app keeps files open, which an image cannot hold")
                memory, box = instance.memory(), instance.mailbox
                if len(memory) > _MAX_BYTES:
                    raise AppFailedToStart(f"its memory of {len(memory) >> 20} MiB is too large")
                with disk_full_is_clear(str(out.parent)):
                    write_sparse(memory, out)
                    with out.open("ab") as file:
                        file.write(abi.pack_record(box) if box else b"")
                        file.truncate(len(memory) + WASM_PAGE)
                return instance.clock_ns
            finally:
                guest.close()

        return in_scheduler(self._linkage.engine, write)

    def _keep(self, image: Path, clock_ns: int, findings: tuple[Finding, ...]) -> Snapshot:
        digest, own_bytes, blob_bytes = self._images.put(image, BASE_IMAGE, clock_ns)
        return Snapshot(
            verdict="unwarmed" if findings else "sound",
            image=digest,
            runtime=image_digest(),
            size=image.stat().st_size,
            own_bytes=own_bytes,
            blob_bytes=blob_bytes,
            private=True,
            why="",
            findings=findings,
        )

    def _try_out(self, snapshot: Snapshot, warmup: Warmup) -> None:
        """That a start from the image works, before a worker relies on it."""
        opened = self._images.open(snapshot.image, BASE_IMAGE)

        async def start(scheduler: Scheduler) -> None:
            guest = self._guest(scheduler, Image(opened.fd, opened.size, opened.clock_ns))
            try:
                async with bounded(_REQUEST_S, "a start from the image"):
                    await guest.start()
                    if warmup:
                        await warm(guest, *warmup[0])
            finally:
                guest.close()

        try:
            in_scheduler(self._linkage.engine, start)
        finally:
            opened.close()

    def _guest(self, scheduler: Scheduler, image: Image | None) -> ReactorGuest:
        return new_guest(
            self._linkage,
            scheduler=scheduler,
            app_tree=self._app_tree,
            tmp=self._tmp,
            env={},
            memory_mib=self._spec.limits.memory_mib,
            disk_mib=self._spec.limits.disk_mib,
            output=lambda _stream, _data: None,
            share=("", ""),
            precise_clocks=False,
            image=image,
        )
