"""The image of a booted, warmed app, if it can have one.

An app sees its settings in `env` alone, so an image is taken without any: it holds none, and apps
of the same package share it. An app that reads one while it is warmed may have kept what it made of
it, and is taken without the warm-up; one that reads one when it is loaded has no image. Random
numbers that were drawn make an image private. Volumes are empty folders meanwhile: what an app made
of one is not true.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.model.app import AppSpec
from isopod.model.snapshot import Finding, Snapshot
from isopod.runtimes.javascript.artifacts import image_digest
from isopod.runtimes.javascript.runtime import JavaScriptRuntime
from isopod.runtimes.javascript.serve import JavaScriptGuest
from isopod.runtimes.taking import ImageLimits, Taken, Taker
from isopod.runtimes.temporary import Scratch
from isopod.runtimes.warming import Warmup, bounded, requests_of

_LIMITS = ImageLimits()


def take_snapshot(
    runtime: JavaScriptRuntime, *, site_tree: Path, spec: AppSpec, images: ImageCache, work: Path
) -> Snapshot:
    """Never raises for what the app does. Raises DiskFull."""
    taker = Taker(
        spec=spec,
        engine=runtime.linkage.engine,
        base_image=runtime.base_image,
        image_digest=image_digest(),
        images=images,
        work=work,
        limits=_LIMITS,
    )
    new_guest = partial(_new_guest, runtime, site_tree, spec)

    def take(warmup: Warmup, out: Path) -> Taken:
        return taker.boot(new_guest, warmup, lambda guest: _take(guest, taker, out))

    return taker.take_snapshot(take, new_guest, requests=requests_of(spec))


async def _take(guest: JavaScriptGuest, taker: Taker, out: Path) -> Taken:
    async with bounded(taker.limits.boot_s, "the snapshot"):
        report = await guest.prepare_image()
    taker.write(guest.instance.memory(), out)
    names = sorted(str(name) for name in report.get("read", ()))[:20]
    untrue = [Finding("setting", f"{name} is read before the snapshot", "") for name in names]
    if guest.used_values:
        what = "a key-value binding is used before the snapshot"
        untrue.append(Finding("volume", what, ""))
    held: tuple[Finding, ...] = ()
    if report.get("drawn"):
        what = "random bytes are drawn before the snapshot and may be kept"
        held = (Finding("entropy", what, ""),)
    return Taken(guest.instance.clock_ns, held=held, spoilt=tuple(untrue))


def _new_guest(
    runtime: JavaScriptRuntime,
    site_tree: Path,
    spec: AppSpec,
    scheduler: Scheduler,
    folders: Scratch,
    image: Image | None = None,
) -> JavaScriptGuest:
    return runtime.new_guest(
        scheduler=scheduler,
        site_tree=site_tree,
        env={},
        memory_mib=spec.limits.memory_mib,
        output=lambda _stream, _data: None,
        image=image,
        volumes=folders.volumes,
    )
