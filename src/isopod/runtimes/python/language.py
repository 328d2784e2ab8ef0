"""Python, as `isopod.runtimes.base.Runtime` wants a language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.base import Claim, InWorker, Progress
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.python import (
    artifacts,
    building,
    dependencies,
    detect,
    preparing,
    snapshotting,
)
from isopod.runtimes.python.guests import PythonGuests
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.taking import Source


class PythonLanguage:
    name = "python"
    mounts_volumes = True
    prepared_by_up = True

    def info(self, cache_dir: Path) -> RuntimeInfo:
        return preparing.info(cache_dir)

    def digest(self) -> Digest:
        return artifacts.runtime_digest()

    def image_digest(self) -> Digest:
        return artifacts.image_digest()

    def prepare(self, cache_dir: Path, progress: Progress) -> None:
        preparing.prepare(cache_dir, progress)

    def claim(self, folder: Path, manifest: Manifest) -> Claim:
        return detect.claim(folder, manifest)

    def detect(self, folder: Path, manifest: Manifest) -> str:
        return detect.detect(folder, manifest)

    def install_dependencies(self, cache_dir: Path, folder: Path, site: Path) -> Installed:
        return dependencies.install(folder, site, cache_dir=cache_dir)

    def compile_app(
        self,
        cache_dir: Path,
        folder: Path,
        manifest: Manifest,  # noqa: ARG002  it says nothing of that
    ) -> str:
        building.compile_app(PythonRuntime(cache_dir), folder)
        return "The app"

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        # Packages carry files for other versions of Python: that these fail harms nobody.
        building.compile_tree(PythonRuntime(cache_dir), site)

    def check_health(
        self, cache_dir: Path, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
    ) -> HealthResult:
        return building.check_health(
            PythonRuntime(cache_dir),
            app_tree=app_tree,
            site_tree=site_tree,
            spec=spec,
            tmp_root=tmp_root,
        )

    def take_snapshot(
        self,
        cache_dir: Path,
        *,
        app_tree: Path,
        site_tree: Path,
        spec: AppSpec,
        images: ImageCache,
        work: Path,
        secrets: Mapping[str, str],
    ) -> Snapshot:
        return snapshotting.take_snapshot(
            PythonRuntime(cache_dir),
            Source(app_tree, site_tree, spec, secrets),
            images=images,
            work=work,
        )

    def in_worker(self, lent: InWorker) -> PythonGuests:
        runtime = PythonRuntime(
            lent.cache_dir, precise_clocks=lent.precise_clocks, engine=lent.engine
        )
        return PythonGuests(runtime)


def runtime() -> PythonLanguage:
    """Found by `isopod.runtimes`."""
    return PythonLanguage()
