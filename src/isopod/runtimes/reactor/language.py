"""Reactors, as `isopod.runtimes.base.Runtime` wants a language; and what a language that is
compiled to one has in common with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from isopod.blobs.images import ImageCache
from isopod.manifest import Manifest
from isopod.manifest import load as load_manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot
from isopod.runtimes.base import Claim, GuestOrder, InWorker, Progress
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.reactor import abi, detect

if TYPE_CHECKING:
    from isopod.engine.linker import Linkage
    from isopod.runtimes.reactor.serve import ReactorGuest


class ReactorLanguage:
    """`cache_dir` is no matter here: there is nothing to prepare."""

    name = "reactor"
    mounts_volumes = True
    prepared_by_up = True

    def __init__(self) -> None:
        self._compiled: tuple[Path, Linkage] | None = None

    def info(self, cache_dir: Path) -> RuntimeInfo:  # noqa: ARG002
        return RuntimeInfo(
            name=self.name,
            version=f"ABI {abi.VERSION}",
            digest=self.digest(),
            size_bytes=0,
            prepared=True,
            licence="Apache-2.0",
        )

    def digest(self) -> Digest:
        from isopod.runtimes.reactor.runtime import runtime_digest

        return runtime_digest()

    def image_digest(self) -> Digest:
        from isopod.runtimes.reactor.runtime import image_digest

        return image_digest()

    def prepare(self, cache_dir: Path, progress: Progress) -> None:  # noqa: ARG002
        progress(1.0, "reactors need no preparing")

    def claim(self, folder: Path, manifest: Manifest) -> Claim:
        return detect.claim(folder, manifest)

    def detect(self, folder: Path, manifest: Manifest) -> str:
        return detect.detect(folder, manifest)

    def install_dependencies(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,
        site: Path,
    ) -> Installed:
        entrypoint = detect.detect(folder, load_manifest(folder))
        size = put_module(folder / entrypoint, site)
        return installed(site, f"{entrypoint}, {size / 1024:,.0f} KiB")

    def compile_app(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
    ) -> str:
        return "Nothing: it is a module"

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """The engine compiles it where it runs."""

    def check_health(
        self,
        cache_dir: Path,  # noqa: ARG002
        *,
        app_tree: Path,
        site_tree: Path,
        spec: AppSpec,
        tmp_root: Path,
    ) -> HealthResult:
        from isopod.runtimes.reactor import building

        return building.check_health(
            self._linkage(site_tree), app_tree=app_tree, tmp=tmp_root, spec=spec
        )

    def take_snapshot(
        self,
        cache_dir: Path,  # noqa: ARG002
        *,
        app_tree: Path,
        site_tree: Path,
        spec: AppSpec,
        images: ImageCache,
        work: Path,
        secrets: Mapping[str, str],
    ) -> Snapshot:
        from isopod.runtimes.reactor.snapshotting import take_snapshot
        from isopod.runtimes.taking import Source

        source = Source(app_tree, site_tree, spec, secrets)
        return take_snapshot(self._linkage(site_tree), source, images=images, work=work)

    def in_worker(self, lent: InWorker) -> ReactorGuests:
        return ReactorGuests(lent)

    def _linkage(self, site_tree: Path) -> Linkage:
        """In a builder: what two steps of a build need is compiled once."""
        from isopod.runtimes.reactor import building

        if self._compiled is None or self._compiled[0] != site_tree:
            self._compiled = (site_tree, building.link(site_tree))
        return self._compiled[1]


class ReactorGuests:
    """The runtime in a worker, as `isopod.runtimes.base.Guests` and `LoadsModules`."""

    def __init__(self, lent: InWorker) -> None:
        from isopod.engine.linker import Imports
        from isopod.runtimes.own_modules import OwnModules
        from isopod.runtimes.reactor import runtime

        self._runtime = runtime
        self._precise_clocks = lent.precise_clocks
        imports = Imports(lent.engine, abi.IMPORTS, streams=True)
        self._modules = OwnModules(
            lent.machine_code, imports, exports=abi.EXPORTS, optional=abi.OPTIONAL
        )
        self._loaded: WeakValueDictionary[tuple[str, Path], Linkage] = WeakValueDictionary()

    @property
    def image_digest(self) -> Digest:
        return self._runtime.image_digest()

    @property
    def base_image(self) -> Path:
        return self._runtime.BASE_IMAGE

    def module(self, app_tree: Path, site_tree: Path, entrypoint: str) -> Path:  # noqa: ARG002
        return site_tree / self._runtime.MODULE

    async def make(self, module: Path, tenant: str) -> None:
        await self._modules.make(module, tenant)

    async def load(self, module: Path, tenant: str) -> object:
        linkage = await self._modules.linkage(module, tenant)
        # A tree may be of two tenants, and each has its own machine code.
        self._loaded[tenant, module] = linkage
        return linkage

    def new_guest(self, order: GuestOrder) -> ReactorGuest:
        tenant, _ = order.share
        module = self.module(order.app_tree, order.site_tree, order.entrypoint)
        return self._runtime.new_guest(
            self._loaded[tenant, module],
            scheduler=order.scheduler,
            app_tree=order.app_tree,
            tmp=order.tmp,
            env=order.env,
            memory_mib=order.memory_mib,
            disk_mib=order.disk_mib,
            output=order.output,
            share=order.share,
            precise_clocks=self._precise_clocks,
            image=order.image,
            world=order.world,
            app=order.app,
            volumes=order.volumes,
        )


def put_module(module: Path, site: Path) -> int:
    """Into the new folder `site`, as it will run; its bytes. Raises ModuleInvalid."""
    from isopod.engine.kept_globals import keep_globals
    from isopod.engine.machine_code import read_module
    from isopod.runtimes.reactor.runtime import MODULE

    data = read_module(module)
    site.mkdir()
    (site / MODULE).write_bytes(keep_globals(data).module)
    return len(data)


def installed(site: Path, text: str, distributions: tuple[tuple[str, str], ...] = ()) -> Installed:
    total = hashlib.sha256()
    for path in sorted(site.iterdir()):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Installed(distributions, Digest(total.hexdigest()), text)


def runtime() -> ReactorLanguage:
    """Found by `isopod.runtimes`."""
    return ReactorLanguage()
