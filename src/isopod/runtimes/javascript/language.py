"""JavaScript, as `isopod.runtimes.base.Runtime` wants a language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.manifest import Manifest
from isopod.manifest import load as load_manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.base import Claim, GuestOrder, InWorker, Progress, not_prepared
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.javascript import (
    artifacts,
    building,
    bundling,
    detect,
    preparing,
    snapshotting,
)
from isopod.runtimes.javascript.runtime import JavaScriptRuntime
from isopod.runtimes.javascript.serve import JavaScriptGuest


class JavaScriptLanguage:
    name = "javascript"
    mounts_volumes = True  # as key-value bindings
    # It is fetched from a registry, and a node that serves no JavaScript does without.
    prepared_by_up = False

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
        if not preparing.info(cache_dir).prepared:
            raise not_prepared("JavaScript", self.name)
        entrypoint = detect.detect(folder, load_manifest(folder))
        return bundling.install(folder, entrypoint, site, cache_dir=cache_dir)

    def compile_app(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
    ) -> str:
        return "Nothing: it is a bundle"

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """QuickJS compiles it when it boots."""

    def check_health(
        self,
        cache_dir: Path,
        *,
        app_tree: Path,  # noqa: ARG002  the bundle has everything
        site_tree: Path,
        spec: AppSpec,
        tmp_root: Path,
    ) -> HealthResult:
        return building.check_health(
            JavaScriptRuntime(cache_dir), site_tree=site_tree, spec=spec, tmp_root=tmp_root
        )

    def take_snapshot(
        self,
        cache_dir: Path,
        *,
        app_tree: Path,  # noqa: ARG002
        site_tree: Path,
        spec: AppSpec,
        images: ImageCache,
        work: Path,
        secrets: Mapping[str, str],  # noqa: ARG002  an image is taken without any setting
    ) -> Snapshot:
        return snapshotting.take_snapshot(
            JavaScriptRuntime(cache_dir), site_tree=site_tree, spec=spec, images=images, work=work
        )

    def in_worker(self, lent: InWorker) -> JavaScriptGuests:
        return JavaScriptGuests(
            JavaScriptRuntime(
                lent.cache_dir, precise_clocks=lent.precise_clocks, engine=lent.engine
            )
        )


@dataclass(frozen=True, slots=True)
class JavaScriptGuests:
    """The runtime in a worker, as `isopod.runtimes.base.Guests`."""

    runtime: JavaScriptRuntime

    @property
    def image_digest(self) -> Digest:
        return artifacts.image_digest()

    @property
    def base_image(self) -> Path:
        return self.runtime.base_image

    def new_guest(self, order: GuestOrder) -> JavaScriptGuest:
        return self.runtime.new_guest(
            scheduler=order.scheduler,
            site_tree=order.site_tree,
            env=order.env,
            memory_mib=order.memory_mib,
            output=order.output,
            image=order.image,
            share=order.share,
            world=order.world,
            app=order.app,
            volumes=order.volumes,
        )


def runtime() -> JavaScriptLanguage:
    """Found by `isopod.runtimes`."""
    return JavaScriptLanguage()
