"""What the tests of JavaScript share: apps of one module, their guests, and images of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.runtimes import apps

from isopod.engine.image import Image
from isopod.host.capabilities import World
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume
from isopod.runtimes.javascript import snapshotting
from isopod.runtimes.javascript.runtime import BUNDLE, JavaScriptRuntime
from isopod.runtimes.javascript.serve import JavaScriptGuest


def worker(body: str, before: str = "") -> str:
    return f"{before}\nexport default {{ async fetch(request, env, ctx) {{ {body} }} }}\n"


class Workshop(apps.Workshop):
    def __init__(self, cache: Path, folder: Path) -> None:
        super().__init__(folder)
        self.runtime = JavaScriptRuntime(cache)
        self.base_image = self.runtime.base_image
        self.scheduler(self.runtime.linkage.engine)

    def site(self, source: str) -> Path:
        path = self.made(f"site-{abs(hash(source)):x}")
        (path / BUNDLE).write_text(source)
        return path

    def new_guest(
        self,
        source: str | Path,
        *,
        output: Any,
        env: dict[str, str] | None = None,
        memory_mib: int = 64,
        image: Image | None = None,
        world: World | None = None,
        app: str = "",
        volumes: tuple[LentVolume, ...] = (),
    ) -> JavaScriptGuest:
        """`source`: of a bundle, or where one is."""
        return self.runtime.new_guest(
            scheduler=self.scheduler(self.runtime.linkage.engine),
            site_tree=source if isinstance(source, Path) else self.site(source),
            env=env or {},
            memory_mib=memory_mib,
            output=output,
            image=image,
            world=world,
            app=app,
            volumes=volumes,
        )

    def snapshot(
        self, source: str, volumes: tuple[VolumeMount, ...] = (), **startup: Any
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "javascript", "worker.js", env={"KEY": "of the app"},
            startup=Startup(**startup), limits=Limits(memory_mib=64), volumes=volumes,
        )  # fmt: skip
        site, work = self.site(source), self.made("work")
        return snapshotting.take_snapshot(
            self.runtime, site_tree=site, spec=spec, images=self.images(), work=work
        )
