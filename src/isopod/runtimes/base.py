"""What a language runtime offers to the rest of isopod. A runtime for a tenant's own language is
one folder that fulfils this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from isopod.blobs.images import ImageCache
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed

Progress = Callable[[float, str], None]


class Runtime(Protocol):
    """Everything a node, a builder and the command line ask of a language."""

    @property
    def name(self) -> str: ...

    def info(self, cache_dir: Path) -> RuntimeInfo:
        """What `isopod runtimes` shows; cheap."""

    def digest(self) -> Digest:
        """Of everything a build depends on beside the package."""

    def image_digest(self) -> Digest:
        """What a memory image belongs to; one of another digest is never restored."""

    def prepare(self, cache_dir: Path, progress: Progress) -> None:
        """Make it ready on this machine: compile its module into the cache."""

    def detect(self, folder: Path, manifest: Manifest) -> str:
        """The app's entrypoint. Raises AppNotDetected and its kin."""

    def install_dependencies(self, cache_dir: Path, folder: Path, site: Path) -> Installed:
        """Install what the app in `folder` asks for into the new folder `site`. Raises
        DependencyInvalid and its kin."""

    def compile_tree(self, cache_dir: Path, folder: Path) -> list[tuple[str, str]]:
        """Compile the sources below `folder` in place; (path, message) of those that fail."""

    def check_health(
        self, cache_dir: Path, *, app_tree: Path, site_tree: Path, spec: AppSpec, tmp_root: Path
    ) -> HealthResult:
        """Boot the app and send it its health request."""

    def take_snapshot(
        self,
        cache_dir: Path,
        *,
        app_tree: Path,
        site_tree: Path,
        spec: AppSpec,
        images: ImageCache,
        work: Path,
    ) -> Snapshot:
        """Boot the app, warm it and keep its memory, or say why not. `work` is scratch space."""
