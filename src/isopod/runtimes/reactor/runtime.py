"""Reactors in this process: a factory of guests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from isopod.engine import kept_globals
from isopod.engine.config import EngineSettings, fingerprint
from isopod.engine.image import Image
from isopod.engine.instance import Instance, InstanceSpec, Mailbox, Preopen
from isopod.engine.linker import Linkage
from isopod.engine.memory import WASM_PAGE
from isopod.engine.run_queue import Share
from isopod.engine.scheduler import Scheduler
from isopod.errors import EngineError
from isopod.host.capabilities import World
from isopod.model.ids import Digest
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import OutputSink
from isopod.runtimes.mounts import preopened
from isopod.runtimes.reactor import abi
from isopod.runtimes.reactor.serve import ReactorGuest, Start

# In a site tree: the app's module with the functions of `engine.kept_globals`.
MODULE = "module.wasm"
_FORMAT = 1  # raise it when images change in a way that nothing else here shows
# What images of all apps have in common: nothing.
BASE_IMAGE = Path(os.devnull)


def runtime_digest() -> Digest:
    """What is done to a module that is deployed."""
    return _digest(f"reactor {_FORMAT} {abi.VERSION} {kept_globals.FORMAT}")


def image_digest() -> Digest:
    return _digest(f"{runtime_digest()} {fingerprint(EngineSettings())}")


def _digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def new_guest(
    linkage: Linkage,
    *,
    scheduler: Scheduler,
    app_tree: Path,
    tmp: Path,
    env: Mapping[str, str],
    memory_mib: int,
    disk_mib: int,
    output: OutputSink,
    share: Share,
    precise_clocks: bool,
    image: Image | None = None,
    world: World | None = None,
    app: str = "",
    volumes: Sequence[LentVolume] = (),
) -> ReactorGuest:
    """`await guest.start()` boots it, or restores it from `image`. The app's files are in /app.
    `world`: what it may reach as `app`, its label; None: no network."""
    instance = Instance(
        linkage,
        InstanceSpec(
            argv=("app",),
            # The app's setup runs before it has settings, and what it left is in its image.
            env=(("PWD", "/app"),),
            preopens=(
                Preopen(app_tree, "/app"),
                Preopen(tmp, "/tmp", writable=True),  # noqa: S108  the guest's own
                *preopened(volumes),
            ),
            memory_bytes=memory_mib << 20,
            share=share,
            disk_bytes=disk_mib << 20,
            clock_step_ns=1 if precise_clocks else 1_000_000,
        ),
    )
    outbox = None
    if image is not None:
        image, instance.mailbox = _opened(image)
        outbox = instance.mailbox.outbox
    initialize = any(one.name == abi.INITIALIZE for one in linkage.module.exports)
    start = Start(initialize, env, outbox)
    guest = ReactorGuest(instance, scheduler, output, start, world=world, app=app)
    instance.start(guest.first_calls(), image=image)
    return guest


def _opened(image: Image) -> tuple[Image, Mailbox]:
    """The memory of an image, and what is in the page after it (see `abi.pack_record`). Whoever
    made it may be a tenant's builder."""
    size = image.size - WASM_PAGE
    data = os.pread(image.fd, abi.RECORD_BYTES, size) if size > 0 else b""
    if len(data) != abi.RECORD_BYTES:
        raise EngineError("a memory image does not say where its mailbox is")
    return Image(image.fd, size, image.clock_ns), abi.parse_record(data, size)
