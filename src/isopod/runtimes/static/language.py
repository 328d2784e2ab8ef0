"""Static sites, as `isopod.runtimes.base.Runtime` wants a language."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import orjson

from isopod.blobs.images import ImageCache
from isopod.errors import HealthFailed
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot, unneeded
from isopod.runtimes.base import Claim, InWorker, Progress
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.static import building, detect
from isopod.runtimes.static.answer import Heads, plan
from isopod.runtimes.static.index import FORMAT, INDEX, Index
from isopod.runtimes.static.kept import Kept
from isopod.runtimes.static.serving import StaticSites
from isopod.runtimes.static.site import Site

_HEALTH_HEADS = 1 << 20
_BUILD = 1  # raise it when equal folders shall be built anew


class StaticLanguage:
    """`cache_dir` is no matter here: there is nothing to prepare."""

    name = "static"
    mounts_volumes = False
    prepared_by_up = True

    def info(self, cache_dir: Path) -> RuntimeInfo:  # noqa: ARG002
        return RuntimeInfo(
            name=self.name,
            version=str(FORMAT),
            digest=self.digest(),
            size_bytes=0,
            prepared=True,
            licence="Apache-2.0",
        )

    def digest(self) -> Digest:
        encoders = (version("brotli"), version("zstandard"), zlib.ZLIB_VERSION)
        return Digest(hashlib.sha256(repr((_BUILD, FORMAT, encoders)).encode()).hexdigest())

    def image_digest(self) -> Digest:
        return Digest("")

    def prepare(self, cache_dir: Path, progress: Progress) -> None:  # noqa: ARG002
        progress(1.0, "static sites need no preparing")

    def claim(self, folder: Path, manifest: Manifest) -> Claim:
        return detect.claim(folder, manifest)

    def detect(self, folder: Path, manifest: Manifest) -> str:
        return detect.detect(folder, manifest)

    def install_dependencies(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        site: Path,
    ) -> Installed:
        return Installed.nothing(site)

    def compile_app(self, cache_dir: Path, folder: Path, manifest: Manifest) -> str:  # noqa: ARG002
        root = detect.detect(folder, manifest)
        made = building.build(folder, root, spa=bool(manifest.static_spa), now=int(time.time()))
        return made.text()

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """There is none."""

    def check_health(
        self,
        cache_dir: Path,  # noqa: ARG002
        *,
        app_tree: Path,
        site_tree: Path,  # noqa: ARG002
        spec: AppSpec,
        tmp_root: Path,  # noqa: ARG002
    ) -> HealthResult:
        """Only a path that was named has to be there: a site may have no home page."""
        began = time.monotonic()
        site = Site(Index.from_json(orjson.loads((app_tree / INDEX).read_bytes())))
        read_ms = (time.monotonic() - began) * 1e3
        path, _, query = spec.health.path.partition("?")
        heads = Heads(Kept(_HEALTH_HEADS), "", Digest(""))
        answer = plan(site, heads, DirectRequest("GET", path, query, []))
        status = 404 if answer is None else answer.status
        if status == 404 and spec.health.path != "/":
            raise HealthFailed(f"the site holds nothing at [health] path {spec.health.path!r}")
        return HealthResult(status, read_ms, (time.monotonic() - began) * 1e3 - read_ms, "")

    def take_snapshot(
        self,
        cache_dir: Path,  # noqa: ARG002
        *,
        app_tree: Path,  # noqa: ARG002
        site_tree: Path,  # noqa: ARG002
        spec: AppSpec,  # noqa: ARG002
        images: ImageCache,  # noqa: ARG002
        work: Path,  # noqa: ARG002
        secrets: Mapping[str, str],  # noqa: ARG002
    ) -> Snapshot:
        return unneeded("the gateway serves it; there are no instances")

    def in_worker(self, lent: InWorker) -> StaticSites:
        return StaticSites(lent.trees)


def runtime() -> StaticLanguage:
    """Found by `isopod.runtimes`."""
    return StaticLanguage()
