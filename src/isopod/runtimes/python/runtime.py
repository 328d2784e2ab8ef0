"""The Python runtime: prepared once per machine, then a factory of guests.

`PythonRuntime` is what the builder, the workers and the command line share. A guest sees /app and
/site (its version's trees, read-only), /usr/local/lib and /isopod (the runtime's, read-only) and
/tmp (its own).
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from isopod.engine.config import Engine
from isopod.engine.image import Image
from isopod.engine.instance import Instance, InstanceSpec, Preopen
from isopod.engine.run_queue import Share
from isopod.engine.scheduler import Scheduler
from isopod.errors import EngineError, IsopodError, RuntimeNotPrepared
from isopod.host.capabilities import World, no_world
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import OutputSink
from isopod.runtimes.mounts import preopened
from isopod.runtimes.prepared_module import load_prepared
from isopod.runtimes.python import artifacts
from isopod.runtimes.python.serve import PythonGuest

BASE_IMAGE = "base.image"
# sqlite3.c, sqlite3_randomness: the first four words of a seeded state.
CHACHA20 = b"expand 32-byte k"
FACTS = "facts.json"


class PythonRuntime:
    """A prepared runtime in this process. Making one maps the module (10 ms); raises
    RuntimeNotPrepared when it is not in the cache."""

    def __init__(
        self, cache_dir: Path, *, precise_clocks: bool = False, engine: Engine | None = None
    ) -> None:
        """`precise_clocks`: guests see nanoseconds, not milliseconds. `engine`: a worker's, which
        other runtimes use too."""
        self.folder = artifacts.folder(cache_dir)
        self.linkage = load_prepared(
            cache_dir,
            language="Python",
            name="python",
            module=artifacts.artifacts().module_digest,
            folder=self.folder,
            engine=engine,
        )
        self._clock_step_ns = 1 if precise_clocks else 1_000_000

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
        lifespan: bool = True,
        share: Share = ("", ""),
        world: World | None = None,
        app: str = "",
        volumes: Sequence[LentVolume] = (),
        command: Sequence[str] = (),
    ) -> PythonGuest:
        """A guest that will serve `entrypoint`; `await guest.start()` boots it, or restores it
        from `image` and calls `after_restore` ("module:function"). `watch`: this boot is to
        become an image; the names of the settings to watch. `lifespan`: whether an ASGI app is told
        to start. `share`: the tenant and its app, on whose part of the CPU it runs. `world`: what
        it may reach as `app` (its label); None: no network. `command`: what it runs instead; it has
        started when that has ended."""
        preopens = (
            Preopen(app_tree, "/app"),
            Preopen(site_tree, "/site"),
            Preopen(tmp, "/tmp", writable=True),  # noqa: S108  the guest's own
            *preopened(volumes),
        )
        instance = self._instance(preopens, env, memory_mib, share, disk_mib << 20)
        made = functools.partial(
            PythonGuest,
            instance,
            scheduler,
            output,
            world=world or no_world(tmp.parent),
            app=app,
            tenant=share[0],
        )
        if image is not None:
            instance.start([("turn", b"isopod_boot.resume()")], image=image, writes=self._seeds())
            config = {"env": self._variables(env), "after_restore": after_restore}
            return made(json.dumps(config).encode())
        mounts = [one.mount for one in volumes]
        names = "None" if watch is None else repr(list(watch))
        told = f"{entrypoint!r}, {names}, {lifespan}, {mounts!r}"
        boot = _code(f"import isopod_boot; isopod_boot.main({told})")
        if command:
            told = f"{list(command)!r}, {mounts!r}"
            boot = _code(f"import isopod_command; isopod_command.main({told})")
        instance.start([("_initialize", None), ("turn", boot)], writes=self._seeds())
        return made()

    @property
    def base_image(self) -> Path:
        """The memory of an instance that has not run: what every image has in common."""
        return self.folder / BASE_IMAGE

    def _seeds(self) -> list[tuple[int, bytes]]:
        """What each instance gets for itself. SQLite keeps a ChaCha20 state in static memory and
        would seed it with the second of its first use: without /dev/urandom it has nothing better
        (sqlite3.c, sqlite3_randomness, unixRandomness)."""
        address = self._sqlite_random_state
        if address is None:
            return []
        # struct sqlite3PrngType: key and nonce around a 64 bit counter, output, bytes left of it.
        state = CHACHA20 + os.urandom(32) + bytes(4) + os.urandom(12)
        return [(address, state), (address + 128, b"\0")]

    @functools.cached_property
    def _sqlite_random_state(self) -> int | None:
        """Its address; None while the runtime is being prepared."""
        try:
            return int(json.loads((self.folder / FACTS).read_bytes())["sqlite_random_state"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RuntimeNotPrepared(
                f"the Python runtime's {FACTS!r} in {str(self.folder)!r} is damaged",
                hint="remove that folder and run `isopod runtimes prepare python`",
            ) from error

    def forget_sqlite_randomness(self, memory: memoryview) -> None:
        """No image holds a state that an instance may use."""
        address = self._sqlite_random_state
        if address is None:
            raise RuntimeNotPrepared("the Python runtime is not prepared for snapshots")
        memory[address : address + 129] = bytes(129)

    @staticmethod
    def _variables(env: Mapping[str, str]) -> dict[str, str]:
        return {"TMPDIR": "/tmp", "HOME": "/tmp", "PYTHONTZPATH": "", **env}  # noqa: S108

    def _instance(
        self,
        preopens: tuple[Preopen, ...],
        env: Mapping[str, str],
        memory_mib: int,
        share: Share = ("", ""),
        disk_bytes: int | None = None,
    ) -> Instance:
        spec = InstanceSpec(
            argv=("/usr/local/bin/python.wasm",),
            env=tuple(sorted(self._variables(env).items())),
            # Always the same folders in the same order: descriptors are numbers in a snapshot.
            preopens=(
                Preopen(self.folder / "lib", "/usr/local/lib"),
                Preopen(self.folder / "guest", "/isopod"),
                Preopen(self.folder / "mpl-data", artifacts.MPL_DATA_GUEST),
                *preopens,
            ),
            memory_bytes=memory_mib << 20,
            share=share,
            disk_bytes=disk_bytes,
            clock_step_ns=self._clock_step_ns,
        )
        return Instance(self.linkage, spec)

    async def memory_after(self, scheduler: Scheduler, code: str | None, memory_mib: int) -> bytes:
        """The memory of an instance that has run `code`, or (None) that was only made."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        instance = self._instance((), {}, memory_mib)

        def on_exit(error: IsopodError | None) -> None:
            if error is not None:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        instance.on_call, instance.on_exit = lambda _frame: instance.reply(b""), on_exit
        instance.start([] if code is None else [("_initialize", None), ("turn", _code(code))])
        try:
            scheduler.wake(instance)
            await ended
            return bytes(instance.memory())
        finally:
            instance.close()

    async def run_script(
        self, scheduler: Scheduler, code: str, preopens: tuple[Preopen, ...], memory_mib: int
    ) -> str:
        """Run `code` in a fresh guest; the text of the R frame it must end with."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[str] = loop.create_future()
        instance = self._instance(preopens, {}, memory_mib)

        def on_call(frame: bytes) -> None:
            if frame[:1] == b"R" and not result.done():
                result.set_result(frame[1:].decode("utf-8", "replace"))
            instance.reply(b"")

        def on_exit(error: Exception | None) -> None:
            if not result.done():
                said = instance.read_stderr()
                result.set_exception(
                    error or EngineError("a script ended without a result", details={"said": said})
                )

        instance.on_call, instance.on_exit = on_call, on_exit
        instance.start([("_initialize", None), ("turn", _code(code))])
        try:
            scheduler.wake(instance)
            return await result
        finally:
            instance.close()


def _code(text: str) -> bytes:
    # Our files come last on the path: an app may have any name for its own.
    return ("import sys; sys.path.append('/isopod'); " + text).encode()
