"""The image of a booted, warmed app, if it can have one.

An app sees its settings in `env` alone, so an image is taken without any: it holds none, and apps
of the same package share it. An app that reads one while it is warmed may have kept what it made of
it, and is taken without the warm-up; one that reads one when it is loaded has no image. Random
numbers that were drawn make an image private. Volumes are empty folders meanwhile: what an app made
of one is not true.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image, write_sparse
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import (
    AppFailedToStart,
    DiskFull,
    IsopodError,
    disk_full_is_clear,
)
from isopod.model.app import AppSpec
from isopod.model.snapshot import Finding, Snapshot, plain
from isopod.runtimes.javascript.artifacts import image_digest
from isopod.runtimes.javascript.runtime import JavaScriptRuntime
from isopod.runtimes.javascript.serve import JavaScriptGuest
from isopod.runtimes.temporary import TemporaryFolder, scratch_volumes
from isopod.runtimes.warming import Warmup, bounded, requests_of, warm

_BOOT_S = 60.0
_REQUEST_S = 10.0
_MAX_BYTES = 500 << 20


@dataclass(frozen=True, slots=True)
class _Taken:
    path: Path
    size: int
    clock_ns: int
    drawn: bool
    untrue: tuple[Finding, ...]  # what it may have kept that other instances must not have


def take_snapshot(
    runtime: JavaScriptRuntime, *, site_tree: Path, spec: AppSpec, images: ImageCache, work: Path
) -> Snapshot:
    """Never raises for what the app does: a snapshot is a gain. Raises DiskFull."""
    if not spec.startup.snapshot:
        return plain("snapshots are off: [startup] snapshot = false")
    requests = requests_of(spec)
    findings: tuple[Finding, ...] = ()
    for warmup in (requests, []) if requests else ([],):
        try:
            taken = _take(runtime, site_tree, spec, warmup, work / "app.image")
            if taken.untrue:
                findings += taken.untrue
                continue
            snapshot = _keep(runtime, taken, images, findings, warmed=bool(warmup))
            _try_out(runtime, site_tree, spec, images, snapshot, warmup, work)
        except DiskFull:
            raise
        except IsopodError as error:
            what = str(error.details.get("summary", "")) or error.message
            findings += (Finding("warm-up" if warmup else "boot", what, ""),)
            continue
        finally:
            (work / "app.image").unlink(missing_ok=True)
        return snapshot
    return plain("what it holds when it has booted cannot be shared", findings)


def _take(
    runtime: JavaScriptRuntime, site_tree: Path, spec: AppSpec, warmup: Warmup, out: Path
) -> _Taken:
    volumes = TemporaryFolder(out.parent)

    async def take(scheduler: Scheduler) -> _Taken:
        guest = _guest(runtime, scheduler, site_tree, spec, None, volumes.path)
        try:
            async with bounded(_BOOT_S, "the start"):
                await guest.start()
            for request, body in warmup:
                async with bounded(_REQUEST_S, f"the warm-up {request.method} {request.path}"):
                    await warm(guest, request, body)
            async with bounded(_BOOT_S, "the snapshot"):
                report = await guest.prepare_image()
            memory = guest.instance.memory()
            if len(memory) > _MAX_BYTES:
                raise AppFailedToStart(f"its memory of {len(memory) >> 20} MiB is too large")
            with disk_full_is_clear(str(out.parent)):
                write_sparse(memory, out)
            names = sorted(str(name) for name in report.get("read", ()))[:20]
            untrue = [
                Finding("setting", f"{name} is read before the snapshot", "") for name in names
            ]
            if guest.used_values:
                what = "a key-value binding is used before the snapshot"
                untrue.append(Finding("volume", what, ""))
            clock_ns, drawn = guest.instance.clock_ns, bool(report.get("drawn"))
            return _Taken(out, len(memory), clock_ns, drawn, tuple(untrue))
        finally:
            guest.close()

    try:
        return in_scheduler(runtime.linkage.engine, take)
    finally:
        volumes.remove()


def _keep(
    runtime: JavaScriptRuntime,
    taken: _Taken,
    images: ImageCache,
    findings: tuple[Finding, ...],
    *,
    warmed: bool,
) -> Snapshot:
    digest, own_bytes, blob_bytes = images.put(taken.path, runtime.base_image, taken.clock_ns)
    if taken.drawn:
        what = "random bytes are drawn before the snapshot and may be kept"
        findings += (Finding("entropy", what, ""),)
    return Snapshot(
        verdict="unwarmed" if findings and not warmed else "sound",
        image=digest,
        runtime=image_digest(),
        size=taken.size,
        own_bytes=own_bytes,
        blob_bytes=blob_bytes,
        private=taken.drawn,
        why="the image may hold random bytes that are its own" if taken.drawn else "",
        findings=findings,
    )


def _try_out(
    runtime: JavaScriptRuntime,
    site_tree: Path,
    spec: AppSpec,
    images: ImageCache,
    snapshot: Snapshot,
    warmup: Warmup,
    work: Path,
) -> None:
    """That a start from the image works, before a worker relies on it."""
    opened = images.open(snapshot.image, runtime.base_image)
    volumes = TemporaryFolder(work)

    async def start(scheduler: Scheduler) -> None:
        image = Image(opened.fd, opened.size, opened.clock_ns)
        guest = _guest(runtime, scheduler, site_tree, spec, image, volumes.path)
        try:
            async with bounded(_REQUEST_S, "a start from the image"):
                await guest.start()
                if warmup:
                    await warm(guest, *warmup[0])
        finally:
            guest.close()

    try:
        in_scheduler(runtime.linkage.engine, start)
    finally:
        volumes.remove()
        opened.close()


def _guest(
    runtime: JavaScriptRuntime,
    scheduler: Scheduler,
    site_tree: Path,
    spec: AppSpec,
    image: Image | None,
    volumes: Path,
) -> JavaScriptGuest:
    return runtime.new_guest(
        scheduler=scheduler,
        site_tree=site_tree,
        env={},
        memory_mib=spec.limits.memory_mib,
        output=lambda _stream, _data: None,
        image=image,
        volumes=scratch_volumes(spec, volumes),
    )
