"""What the tests of reactors share: modules in C, Rust and Go, their guests, and images of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.c_modules import compiled
from tests.unit.host.world import allow, here, made_broker
from tests.unit.runtimes import apps

from isopod.engine.image import Image
from isopod.engine.kept_globals import SAVE
from isopod.engine.linker import Linkage
from isopod.host.capabilities import World
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume
from isopod.runtimes.reactor import building
from isopod.runtimes.reactor.language import put_module
from isopod.runtimes.reactor.runtime import BASE_IMAGE, MODULE, new_guest
from isopod.runtimes.reactor.serve import ReactorGuest
from isopod.runtimes.reactor.snapshotting import take_snapshot
from isopod.runtimes.taking import Source
from tools.reactors import SDK, NoCompiler, make_rust


class Foundry(apps.Workshop):
    """Modules are linked once each."""

    base_image = BASE_IMAGE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._linked: dict[str, Linkage] = {}

    def link(self, module: bytes) -> Linkage:
        """As a builder does."""
        key = hashlib.sha256(module).hexdigest()
        if key not in self._linked:
            site = self.folder / f"site-{key}"
            if SAVE.encode() in module:  # as a language's builder leaves it
                site.mkdir()
                (site / MODULE).write_bytes(module)
            else:
                (self.folder / "uploaded.wasm").write_bytes(module)
                put_module(self.folder / "uploaded.wasm", site)
            self._linked[key] = building.link(site)
        return self._linked[key]

    def new_guest(
        self,
        module: bytes,
        *,
        output: Any,
        env: dict[str, str] | None = None,
        memory_mib: int = 64,
        image: Image | None = None,
        world: World | None = None,
        volumes: tuple[LentVolume, ...] = (),
    ) -> ReactorGuest:
        """It is "app" to its `world`."""
        linkage = self.link(module)
        return new_guest(
            linkage,
            scheduler=self.scheduler(linkage.engine),
            app_tree=self.made("app"),
            tmp=self.made("tmp"),
            env=env or {},
            memory_mib=memory_mib,
            disk_mib=16,
            output=output,
            share=("", ""),
            precise_clocks=False,
            image=image,
            world=world,
            app="app",
            volumes=volumes,
        )

    def leave(self, app: apps.App, path: str) -> None:
        """Ask for a response in pieces, and go after the first."""

        async def leave() -> None:
            async def no_body(_size: int) -> bytes:
                return b""

            response = await app.guest.send(apps.request(path), no_body)
            assert response.more and not app.guest.idle
            app.guest.abandon()
            assert await app.guest.next_chunk() is None
            assert app.guest.idle

        self.run(leave())

    def volume(self, name: str, size_bytes: int = 1 << 20) -> LentVolume:
        return LentVolume(self.made(name), "/data", size_bytes, 0)

    def snapshot(
        self,
        module: bytes,
        *,
        env: dict[str, str] | None = None,
        volumes: tuple[VolumeMount, ...] = (),
        **startup: Any,
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "reactor", "app.wasm", env=env or {},
            startup=Startup(**startup), limits=Limits(memory_mib=64), volumes=volumes,
        )  # fmt: skip
        source = Source(self.made("app"), self.made("site"), spec)
        work = self.made("work")
        return take_snapshot(self.link(module), source, images=self.images(), work=work)


@asynccontextmanager
async def reaching(lab: Foundry, *ports: int, extra: str = "") -> AsyncIterator[World]:
    """What an app may reach: these ports of localhost."""
    listed = allow(*(f"localhost:{port}" for port in ports))
    broker = made_broker({"app": ("default", listed)}, here(*ports))
    world = World.make(broker, trust="", extra=extra, key_folder=lab.folder)
    try:
        yield world
    finally:
        world.close()
        broker.close()


def c_module(source: Path, out: Path) -> bytes:
    options = ("-mexec-model=reactor", "-Wall", "-Werror", f"-I{SDK / 'c'}")
    out.write_bytes(compiled(source, *options))
    return out.read_bytes()


def rust_module(source: Path, out: Path) -> bytes:
    try:
        make_rust(source, out)
    except NoCompiler as missing:
        pytest.skip(str(missing))
    return out.read_bytes()
