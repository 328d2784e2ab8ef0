"""The image of a reactor that has run its setup and was warmed.

Its setup runs without settings, so an image has none. What a request reads cannot be seen from
outside: an app that has settings is not warmed, since it might keep what it made of one. Which
random numbers were drawn cannot be told from those that every program in Go draws as it starts:
so an image is its app's own, and each language's package seeds its generator again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image
from isopod.engine.linker import Linkage
from isopod.engine.memory import WASM_PAGE
from isopod.engine.scheduler import Scheduler
from isopod.errors import AppFailedToStart, disk_full_is_clear
from isopod.model.snapshot import Finding, Snapshot
from isopod.runtimes.mounts import used_volumes
from isopod.runtimes.reactor import abi
from isopod.runtimes.reactor.runtime import BASE_IMAGE, image_digest, new_guest
from isopod.runtimes.reactor.serve import ReactorGuest
from isopod.runtimes.taking import ImageLimits, Source, Taken, Taker
from isopod.runtimes.temporary import Scratch
from isopod.runtimes.warming import Warmup, bounded, requests_of

_LIMITS = ImageLimits()


def take_snapshot(linkage: Linkage, source: Source, *, images: ImageCache, work: Path) -> Snapshot:
    """Of an app's module. Never raises for what the app does. Raises DiskFull."""
    taker = Taker(
        spec=source.spec,
        engine=linkage.engine,
        base_image=BASE_IMAGE,
        image_digest=image_digest(),
        images=images,
        work=work,
        limits=_LIMITS,
    )
    new = partial(_new_guest, linkage, source)

    def take(warmup: Warmup, out: Path) -> Taken:
        return taker.boot(new, warmup, lambda guest: _take(guest, taker, out))

    requests = requests_of(source.spec)
    findings: tuple[Finding, ...] = ()
    if requests and source.variables:
        what = "the app has settings, and a warm-up request might keep one"
        findings, requests = (Finding("setting", what, ""),), []
    return taker.take_snapshot(
        take,
        new,
        requests=requests,
        findings=findings,
        otherwise="what it holds when it has started cannot be kept",
    )


async def _take(guest: ReactorGuest, taker: Taker, out: Path) -> Taken:
    async with bounded(taker.limits.boot_s, "the snapshot"):
        await guest.keep_globals()
    instance = guest.instance
    if instance.files.open_count:
        raise AppFailedToStart("the app keeps files open, which an image cannot hold")
    memory, box = instance.memory(), instance.mailbox
    taker.write(memory, out)
    with disk_full_is_clear(str(out.parent)), out.open("ab") as file:
        file.write(abi.pack_record(box) if box else b"")
        file.truncate(len(memory) + WASM_PAGE)
    return Taken(instance.clock_ns, private=True, spoilt=used_volumes(instance))


def _new_guest(
    linkage: Linkage,
    source: Source,
    scheduler: Scheduler,
    folders: Scratch,
    image: Image | None = None,
) -> ReactorGuest:
    limits = source.spec.limits
    return new_guest(
        linkage,
        scheduler=scheduler,
        app_tree=source.app_tree,
        tmp=folders.tmp,
        env={},
        memory_mib=limits.memory_mib,
        disk_mib=limits.disk_mib,
        output=lambda _stream, _data: None,
        share=("", ""),
        precise_clocks=False,
        image=image,
        volumes=folders.volumes,
    )
