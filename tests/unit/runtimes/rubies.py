"""What the tests of Ruby share: apps of a config.ru, their guests, and images of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.unit.runtimes import apps

from isopod.engine.image import Image
from isopod.model.app import AppSpec, Limits, Startup
from isopod.model.ids import AppName
from isopod.model.snapshot import Snapshot
from isopod.model.volume import VolumeMount
from isopod.runtimes.base import LentVolume
from isopod.runtimes.ruby import snapshotting
from isopod.runtimes.ruby.runtime import RubyRuntime
from isopod.runtimes.ruby.serve import RubyGuest
from isopod.runtimes.taking import Source


class Workshop(apps.Workshop):
    headers = list

    def __init__(self, cache: Path, folder: Path) -> None:
        super().__init__(folder)
        self.runtime = RubyRuntime(cache)
        self.base_image = self.runtime.base_image
        self.scheduler(self.runtime.linkage.engine)

    def app(self, source: str, more: Mapping[str, str] | None = None) -> Path:
        """A folder with `source` as its config.ru."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        for name, text in {"config.ru": source, **(more or {})}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        return path

    def new_guest(
        self,
        source: str | Path,
        *,
        output: Any,
        env: Mapping[str, str] | None = None,
        memory_mib: int = 128,
        image: Image | None = None,
        site: Path | None = None,
        after_restore: str = "",
        volumes: tuple[LentVolume, ...] = (),
    ) -> RubyGuest:
        """`source`: a config.ru, or an app's folder."""
        return self.runtime.new_guest(
            scheduler=self.scheduler(self.runtime.linkage.engine),
            app_tree=source if isinstance(source, Path) else self.app(source),
            site_tree=site or self.made("site"),
            tmp=Path(tempfile.mkdtemp(dir=self.folder)),
            entrypoint="config.ru",
            env=env or {},
            memory_mib=memory_mib,
            disk_mib=16,
            output=output,
            image=image,
            after_restore=after_restore,
            volumes=volumes,
        )

    def snapshot(
        self,
        source: Path,
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        volumes: tuple[VolumeMount, ...] = (),
        **startup: Any,
    ) -> Snapshot:
        spec = AppSpec(
            AppName("x"), "ruby", "config.ru", env=env or {},
            startup=Startup(**startup), limits=Limits(memory_mib=128), volumes=volumes,
        )  # fmt: skip
        work = Path(tempfile.mkdtemp(dir=self.folder))
        made = Source(source, self.made("site"), spec, secrets or {})
        return snapshotting.take_snapshot(self.runtime, made, images=self.images(), work=work)
