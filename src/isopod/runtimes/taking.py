"""Taking the image of a booted, warmed app: what is the same in every language. What an app must
not have kept, each language finds out in its own way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from isopod.blobs.images import ImageCache
from isopod.engine.config import Engine
from isopod.engine.image import Image, write_sparse
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import AppFailedToStart, DiskFull, IsopodError, disk_full_is_clear
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.snapshot import Finding, Snapshot, Verdict, plain
from isopod.runtimes.guest import Guest, GuestRequest
from isopod.runtimes.temporary import Scratch, scratch
from isopod.runtimes.warming import Warmup, bounded, warm

OFF = "snapshots are off: [startup] snapshot = false"
NOT_SHARED = "what it holds when it has booted cannot be shared"

_G = TypeVar("_G", bound=Guest)
_T = TypeVar("_T")
Restore = Callable[[Scheduler, Scratch, Image], Guest]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """`max_bytes`: of the memory. `boot_s`: for the start of the app, and for its hooks.
    `request_s`: for one request of the warm-up; a deploy waits for it."""

    max_bytes: int = 500 << 20
    boot_s: float = 60.0
    request_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Source:
    """What an image is taken of. `secrets`: values that it is tried with, and never holds."""

    app_tree: Path
    site_tree: Path
    spec: AppSpec
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """A secret goes over a setting of its name."""
        return {**self.spec.env, **self.secrets}


@dataclass(frozen=True, slots=True)
class Taken:
    """An image in a file. `clock_ns`: the guest's then. `held`: what makes it its app's own;
    `private`: it is so, whatever it holds. `spoilt`: what costs it, as no instance may have it."""

    clock_ns: int
    held: tuple[Finding, ...] = ()
    private: bool = False
    spoilt: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """Of images of one app, in a builder. `base_image`: what those of its runtime have in common.
    `image_digest`: what they belong to. `work`: scratch space."""

    spec: AppSpec
    engine: Engine
    base_image: Path
    image_digest: Digest
    images: ImageCache
    work: Path
    limits: ImageLimits

    def take_snapshot(
        self,
        take: Callable[[Warmup, Path], Taken],
        restore: Restore,
        *,
        requests: Warmup,
        findings: tuple[Finding, ...] = (),
        otherwise: str = NOT_SHARED,
    ) -> Snapshot:
        """Of the warmed app, else of one that has only booted, else none: `otherwise` says why.
        `take` writes an image to a path. Never raises for what the app does: a snapshot is a gain,
        not a condition. Raises DiskFull."""
        if not self.spec.startup.snapshot:
            return plain(OFF)
        out = self.work / "app.image"
        for warmup in (requests, []) if requests else ([],):
            try:
                taken = take(warmup, out)
                if taken.spoilt:
                    findings += taken.spoilt
                    continue
                verdict: Verdict = "unwarmed" if findings and not warmup else "sound"
                snapshot = self.keep(out, taken, verdict, (*findings, *taken.held))
                self.try_out(snapshot, restore, warmup[0] if warmup else None)
            except DiskFull:
                raise
            except IsopodError as error:
                what = str(error.details.get("summary", "")) or error.message
                findings += (Finding("warm-up" if warmup else "boot", what, ""),)
                continue
            finally:
                out.unlink(missing_ok=True)
            return snapshot
        return plain(otherwise, findings)

    def boot(
        self,
        new_guest: Callable[[Scheduler, Scratch], _G],
        warmup: Warmup,
        take: Callable[[_G], Awaitable[_T]],
    ) -> _T:
        """Boot a guest, warm it, and `take` of it. Raises what fails."""

        async def boot(scheduler: Scheduler) -> _T:
            guest = new_guest(scheduler, folders)
            try:
                await boot_and_warm(guest, warmup, self.limits)
                return await take(guest)
            finally:
                guest.close()

        with scratch(self.spec, self.work) as folders:
            return in_scheduler(self.engine, boot)

    def write(self, memory: memoryview, out: Path) -> None:
        """Raises AppFailedToStart when it is too large, DiskFull."""
        if len(memory) > self.limits.max_bytes:
            raise AppFailedToStart(f"its memory of {len(memory) >> 20} MiB is too large")
        with disk_full_is_clear(str(out.parent)):
            write_sparse(memory, out)

    def keep(
        self, image: Path, taken: Taken, verdict: Verdict, findings: tuple[Finding, ...]
    ) -> Snapshot:
        """The image in a blob. Raises DiskFull."""
        digest, own_bytes, blob_bytes = self.images.put(image, self.base_image, taken.clock_ns)
        kinds = {finding.kind for finding in taken.held}
        reasons = [
            *(["the image holds values of its settings"] if "setting" in kinds else []),
            *(["the image may hold random bytes that are its own"] if "entropy" in kinds else []),
        ]
        return Snapshot(
            verdict=verdict,
            image=digest,
            runtime=self.image_digest,
            size=image.stat().st_size,
            own_bytes=own_bytes,
            blob_bytes=blob_bytes,
            private=taken.private or bool(taken.held),
            why=", ".join(reasons),
            findings=findings,
        )

    def try_out(
        self, snapshot: Snapshot, restore: Restore, first: tuple[GuestRequest, bytes] | None
    ) -> None:
        """That a start from the image works, before a worker relies on it, and that it answers
        `first`. The image is then ready on this node. Raises what fails."""
        opened = self.images.open(snapshot.image, self.base_image)

        async def start(scheduler: Scheduler) -> None:
            guest = restore(scheduler, folders, Image(opened.fd, opened.size, opened.clock_ns))
            try:
                async with bounded(self.limits.request_s, "a start from the image"):
                    await guest.start()
                    if first is not None:
                        await warm(guest, *first)
            finally:
                guest.close()

        try:
            with scratch(self.spec, self.work) as folders:
                in_scheduler(self.engine, start)
        finally:
            opened.close()


async def boot_and_warm(
    guest: Guest, warmup: Warmup, limits: ImageLimits, *, start: str = "the start"
) -> None:
    """Raises what the boot raises, AppFailedToStart when a warm-up fails, DeadlineExceeded, which
    calls the start `start`."""
    async with bounded(limits.boot_s, start):
        await guest.start()
    for request, body in warmup:
        async with bounded(limits.request_s, f"the warm-up {request.method} {request.path}"):
            await warm(guest, request, body)
