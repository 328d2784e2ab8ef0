"""The Ruby runtime in this process: prepared once per machine, then a factory of guests.

A guest sees /app and /site (its version's files and its gems, read-only), /isopod (ours,
read-only) and /tmp (its own); Ruby's standard library is inside the module.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from isopod.engine.config import Engine
from isopod.engine.image import Image
from isopod.engine.instance import Instance, InstanceSpec, Preopen
from isopod.engine.linker import Linkage
from isopod.engine.run_queue import Share
from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import OutputSink
from isopod.runtimes.mounts import preopened
from isopod.runtimes.prepared_module import load_prepared
from isopod.runtimes.ruby import artifacts
from isopod.runtimes.ruby.artifacts import BASE_IMAGE, GUEST
from isopod.runtimes.ruby.calls import call, quoted
from isopod.runtimes.ruby.imports import IMPORTS
from isopod.runtimes.ruby.serve import RubyGuest

# What Ruby takes at its start for a cache of object shapes, clears, and hardly ever uses.
RESERVED_BYTES = 308 << 20
_ARGUMENTS = (
    *("ruby", "--disable=gems,did_you_mean,error_highlight,syntax_suggest"),
    *("-EUTF-8", "-e_=0"),
)
# Of each Fiber, which Ruby reads at its start; 16 MiB, as a page's Ruby gets, are too many here.
_FIBER = ("RUBY_FIBER_MACHINE_STACK_SIZE", str(1 << 20))


class RubyRuntime:
    """Raises RuntimeNotPrepared when it is not in the cache."""

    def __init__(
        self, cache_dir: Path, *, precise_clocks: bool = False, engine: Engine | None = None
    ) -> None:
        self.folder = artifacts.folder(cache_dir)
        self.linkage = load(cache_dir, engine)
        self._clock_step_ns = 1 if precise_clocks else 1_000_000

    @property
    def base_image(self) -> Path:
        return self.folder / BASE_IMAGE

    def new_guest(
        self,
        *,
        scheduler: Scheduler,
        app_tree: Path,
        site_tree: Path,
        tmp: Path,
        entrypoint: str,
        env: Mapping[str, str],
        memory_mib: int,
        disk_mib: int,
        output: OutputSink,
        image: Image | None = None,
        after_restore: str = "",
        watch: Sequence[str] | None = None,
        share: Share = ("", ""),
        volumes: Sequence[LentVolume] = (),
    ) -> RubyGuest:
        """A guest that will serve `entrypoint`; `await guest.start()` boots it, or restores it from
        `image` and calls `after_restore` ("Module:method"). `watch`: this boot is to become an
        image; the names of the settings to watch."""
        instance = Instance(
            self.linkage,
            InstanceSpec(
                argv=(),
                env=(*env.items(), _FIBER),
                preopens=(
                    Preopen(app_tree, "/app"),
                    Preopen(site_tree, "/site"),
                    Preopen(self.folder / GUEST, "/isopod"),
                    Preopen(tmp, "/tmp", writable=True),  # noqa: S108  the guest's own
                    *preopened(volumes),
                ),
                memory_bytes=(memory_mib << 20) + RESERVED_BYTES,
                reserved_bytes=RESERVED_BYTES,
                share=share,
                disk_bytes=disk_mib << 20,
                clock_step_ns=self._clock_step_ns,
            ),
        )
        if image is not None:
            instance.start([call(f"Isopod.resume({quoted(after_restore)})")], image=image)
        else:
            names = "nil" if watch is None else f"[{', '.join(map(quoted, watch))}]"
            instance.start(
                [
                    ("_initialize", None),
                    ("isopod_init", _packed(_ARGUMENTS)),
                    call(f"require '/isopod/isopod'; Isopod.boot({quoted(entrypoint)}, {names})"),
                ]
            )
        settings = b"".join(f"{name}\0{text}\0".encode() for name, text in env.items())
        return RubyGuest(instance, scheduler, output, settings)


def load(cache_dir: Path, engine: Engine | None = None) -> Linkage:
    """Raises RuntimeNotPrepared."""
    return load_prepared(
        cache_dir,
        language="Ruby",
        name="ruby",
        module=artifacts.module_digest(),
        folder=artifacts.folder(cache_dir),
        engine=engine,
        imports=IMPORTS,
    )


async def fresh_memory(linkage: Linkage, scheduler: Scheduler) -> bytes:
    """Of an instance that nothing has run in."""
    spec = InstanceSpec(argv=(), env=(), preopens=(), memory_bytes=64 << 20)
    instance = Instance(linkage, spec)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_exit(error: IsopodError | None) -> None:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    instance.on_exit = on_exit
    try:
        instance.start([])
        scheduler.wake(instance)
        await ended
        return bytes(instance.memory())
    finally:
        instance.close()


def _packed(arguments: Sequence[str]) -> bytes:
    """What `isopod_init` takes."""
    texts = [one.encode() + b"\0" for one in arguments]
    at = 4 + 8 * len(texts)
    head = struct.pack("<I", len(texts))
    for text in texts:
        head += struct.pack("<II", at, len(text))
        at += len(text)
    return head + b"".join(texts)
