"""The JavaScript runtime in this process: prepared once per machine, then a factory of guests.

A guest has no files: its app is one bundle, given to it when it boots. It starts from the memory of
a guest that has run the prelude, or from its app's own image.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.config import Engine
from isopod.engine.image import Image
from isopod.engine.instance import Instance, InstanceSpec, Mailbox
from isopod.engine.linker import HostImport, Linkage
from isopod.engine.run_queue import Share
from isopod.engine.scheduler import Scheduler
from isopod.errors import EngineError, RuntimeNotPrepared
from isopod.host.capabilities import World
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import OutputSink
from isopod.runtimes.javascript import artifacts
from isopod.runtimes.javascript.artifacts import BASE_IMAGE, FACTS
from isopod.runtimes.javascript.serve import JavaScriptGuest, Start
from isopod.runtimes.prepared_module import load_prepared

BUNDLE = "app.js"  # in the site tree
MAILBOX_BYTES = 256 << 10
# What an instance needs beside the values of JavaScript: the module's data and stack, and room that
# malloc cannot use because it is in pieces.
_OVERHEAD_BYTES = 4 << 20
IMPORTS = (
    HostImport("env", "host_call", 5, waits=True),
    HostImport("env", "host_get_timezone_offset", 2),
    HostImport("env", "host_interrupt", 0),
    HostImport("env", "host_module_normalize", 2),
    HostImport("env", "host_module_load", 2),
    HostImport("env", "host_promise_rejection", 3, has_result=False),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Where every guest of this runtime keeps what the host needs."""

    turn: int  # the handle of the function that takes what is in the inbox
    mailbox: Mailbox
    clock_ns: int  # of the base image


class JavaScriptRuntime:
    """Raises RuntimeNotPrepared when it is not in the cache."""

    def __init__(
        self, cache_dir: Path, *, precise_clocks: bool = False, engine: Engine | None = None
    ) -> None:
        self.folder = artifacts.folder(cache_dir)
        self.linkage = load(cache_dir, engine)
        self._clock_step_ns = 1 if precise_clocks else 1_000_000
        try:
            said = json.loads((self.folder / FACTS).read_bytes())
            nothing = bytes.fromhex(said["undefined"])
            box = Mailbox(int(said["inbox"]), int(said["outbox"]), MAILBOX_BYTES, nothing)
            self.facts = Facts(int(said["turn"]), box, int(said["clock_ns"]))
            self._base = os.open(self.base_image, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RuntimeNotPrepared("the JavaScript runtime is not prepared on this node") from (
                error
            )

        # Here, because OpenSSL takes 2 MiB of each process, also of those without JavaScript; and
        # not later, because a worker maps no library once it is shut in.
        from isopod.runtimes.javascript.subtle import Subtle

        self._new_subtle = Subtle
        weakref.finalize(self, os.close, self._base)
        self._base_size = os.fstat(self._base).st_size

    @property
    def base_image(self) -> Path:
        return self.folder / BASE_IMAGE

    def new_guest(
        self,
        *,
        scheduler: Scheduler,
        site_tree: Path,
        env: Mapping[str, str],
        memory_mib: int,
        output: OutputSink,
        image: Image | None = None,
        share: Share = ("", ""),
        world: World | None = None,
        app: str = "",
        volumes: Sequence[LentVolume] = (),
    ) -> JavaScriptGuest:
        """A guest that will serve the bundle in `site_tree`; `await guest.start()` boots it, or
        restores it from `image`. `world`: what it may reach as `app`; None: no network. `volumes`:
        each is a key-value binding."""
        instance = new_instance(
            self.linkage, memory_mib << 20, share=share, clock_step_ns=self._clock_step_ns
        )
        instance.mailbox = self.facts.mailbox
        limit = ("qjs_set_memory_limit", (max(1 << 20, (memory_mib << 20) - _OVERHEAD_BYTES),))
        if image is not None:
            instance.start([limit], image=image)
            code = None
        else:
            base = Image(self._base, self._base_size, self.facts.clock_ns)
            instance.start([limit], image=base)
            code = _app_call(self.facts.turn, site_tree / BUNDLE)
        start = Start(
            turn=self.facts.turn, app=code, env=dict(env), site=site_tree, volumes=volumes
        )
        return JavaScriptGuest(
            instance, scheduler, output, start, world=world, app=app, subtle=self._new_subtle()
        )


def load(cache_dir: Path, engine: Engine | None = None) -> Linkage:
    """Raises RuntimeNotPrepared."""
    return load_prepared(
        cache_dir,
        language="JavaScript",
        name="javascript",
        module=artifacts.module_digest(),
        folder=artifacts.folder(cache_dir),
        engine=engine,
        imports=IMPORTS,
    )


def new_instance(
    linkage: Linkage, memory_bytes: int, *, share: Share = ("", ""), clock_step_ns: int = 1_000_000
) -> Instance:
    return Instance(
        linkage,
        InstanceSpec(
            argv=(),
            env=(),
            preopens=(),
            memory_bytes=memory_bytes,
            share=share,
            clock_step_ns=clock_step_ns,
            folds=True,  # QuickJS counts references
        ),
    )


def _app_call(turn: int, bundle: Path) -> bytes:
    """What `isopod_app` takes."""
    try:
        code = bundle.read_bytes()
    except OSError as error:
        raise EngineError(f"the app's bundle cannot be read: {error.strerror}") from error
    return turn.to_bytes(4, "little") + BUNDLE.encode().ljust(28, b"\0") + code + b"\0"
