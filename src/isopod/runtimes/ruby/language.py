"""Ruby, as `isopod.runtimes.base.Runtime` wants a language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.base import Claim, GuestOrder, InWorker, Progress, not_prepared
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.ruby import artifacts, building, detect, gems, preparing, snapshotting
from isopod.runtimes.ruby.runtime import RubyRuntime
from isopod.runtimes.ruby.serve import RubyGuest
from isopod.runtimes.taking import Source
from isopod.settings import gem_mirror


class RubyLanguage:
    name = "ruby"
    mounts_volumes = True
    # It is fetched from a registry and takes a minute, and a node that serves no Ruby does without.
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
            raise not_prepared("Ruby", self.name)
        return gems.install(folder, site, gems.Source(gem_mirror(), cache_dir / "gems"))

    def compile_app(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
    ) -> str:
        return "When it boots: the app"

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """An image holds what was compiled."""

    def check_health(
        self, cache_dir: Path, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
    ) -> HealthResult:
        return building.check_health(
            RubyRuntime(cache_dir),
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
        source = Source(app_tree, site_tree, spec, secrets)
        return snapshotting.take_snapshot(RubyRuntime(cache_dir), source, images=images, work=work)

    def in_worker(self, lent: InWorker) -> RubyGuests:
        return RubyGuests(
            RubyRuntime(lent.cache_dir, precise_clocks=lent.precise_clocks, engine=lent.engine)
        )


@dataclass(frozen=True, slots=True)
class RubyGuests:
    """The runtime in a worker, as `isopod.runtimes.base.Guests`."""

    runtime: RubyRuntime

    @property
    def image_digest(self) -> Digest:
        return artifacts.image_digest()

    @property
    def base_image(self) -> Path:
        return self.runtime.base_image

    def new_guest(self, order: GuestOrder) -> RubyGuest:
        return self.runtime.new_guest(
            scheduler=order.scheduler,
            app_tree=order.app_tree,
            site_tree=order.site_tree,
            tmp=order.tmp,
            entrypoint=order.entrypoint,
            env=order.env,
            memory_mib=order.memory_mib,
            disk_mib=order.disk_mib,
            output=order.output,
            image=order.image,
            after_restore=order.after_restore,
            share=order.share,
            volumes=order.volumes,
        )


def runtime() -> RubyLanguage:
    """Found by `isopod.runtimes`."""
    return RubyLanguage()
