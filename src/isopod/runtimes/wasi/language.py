"""WASI modules, as `isopod.runtimes.base.Runtime` wants a language."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere
from isopod.engine.module_check import check_module
from isopod.engine.scheduler import Scheduler
from isopod.manifest import Manifest
from isopod.model.app import AppSpec
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.model.snapshot import Snapshot, unneeded
from isopod.runtimes.base import Claim, GuestOrder, InWorker, Progress
from isopod.runtimes.health import HealthCheck, HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.temporary import scratch
from isopod.runtimes.wasi import detect
from isopod.runtimes.wasi.command import ProgramCommand
from isopod.runtimes.wasi.serve import Program, ProgramGuest

_FORMAT = 1  # raise it when builds of before shall be made anew
_EXPORTS = {detect.START: ("", ""), "memory": None}
_TIMEOUT_S = 600.0


class WasiLanguage:
    """`cache_dir` is no matter here: there is nothing to prepare."""

    name = "wasi"
    mounts_volumes = True
    prepared_by_up = True

    def info(self, cache_dir: Path) -> RuntimeInfo:  # noqa: ARG002
        return RuntimeInfo(
            name=self.name,
            version=f"preview 1 (wasmtime {version('wasmtime')})",
            digest=self.digest(),
            size_bytes=0,
            prepared=True,
            licence="Apache-2.0 WITH LLVM-exception (wasmtime)",
        )

    def digest(self) -> Digest:
        return Digest(hashlib.sha256(f"wasi {_FORMAT}".encode()).hexdigest())

    def image_digest(self) -> Digest:
        return Digest("")

    def prepare(self, cache_dir: Path, progress: Progress) -> None:  # noqa: ARG002
        progress(1.0, "apps bring their own modules; there is nothing to prepare")

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
        """Nothing is kept of it: a worker's machine code is made beside the worker."""
        name = detect.detect(folder, manifest)
        check_module(self._here.compiled(folder / name), self._imports, _EXPORTS)
        return f"{name}, {(folder / name).stat().st_size / 1024:,.0f} KiB"

    def compile_site(self, cache_dir: Path, site: Path) -> None:
        """There is none."""

    def check_health(
        self,
        cache_dir: Path,  # noqa: ARG002
        *,
        app_tree: Path,
        site_tree: Path,  # noqa: ARG002
        spec: AppSpec,
        tmp_root: Path,
    ) -> HealthResult:
        check = HealthCheck(spec, do_less="do less before the response")

        async def ask() -> HealthResult:
            modules = OwnModules(self._here, self._imports, exports=_EXPORTS)
            async with Scheduler(self._here.engine) as scheduler, asyncio.timeout(_TIMEOUT_S):
                program = Program(
                    file=app_tree / spec.entrypoint,
                    app_tree=app_tree,
                    tmp=folders.tmp,
                    env=spec.env,
                    memory_bytes=spec.limits.memory_mib << 20,
                    disk_bytes=spec.limits.disk_mib << 20,
                    share=("", spec.name),
                    clock_step_ns=1_000_000,
                    volumes=folders.volumes,
                )
                return await check.ask(
                    ProgramGuest(
                        program, modules=modules, scheduler=scheduler, output=check.collect
                    )
                )

        with scratch(spec, tmp_root) as folders, check.explained():
            return asyncio.run(ask())

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
        return unneeded("each request starts the program afresh")

    def in_worker(self, lent: InWorker) -> Programs:
        imports = Imports(lent.engine, streams=True)
        modules = OwnModules(lent.machine_code, imports, exports=_EXPORTS)
        return Programs(modules, 1 if lent.precise_clocks else 1_000_000)

    @functools.cached_property
    def _here(self) -> CompiledHere:
        return CompiledHere(make_engine(EngineSettings()))

    @functools.cached_property
    def _imports(self) -> Imports:
        return Imports(self._here.engine, streams=True)


@dataclass(frozen=True, slots=True)
class Programs:
    """The runtime in a worker, as `isopod.runtimes.base.Guests` and `LoadsModules`."""

    modules: OwnModules
    clock_step_ns: int

    @property
    def image_digest(self) -> Digest:
        return Digest("")

    @property
    def base_image(self) -> Path:
        return Path()

    def module(self, app_tree: Path, site_tree: Path, entrypoint: str) -> Path:  # noqa: ARG002
        return app_tree / entrypoint

    async def make(self, module: Path, tenant: str) -> None:
        await self.modules.make(module, tenant)

    async def load(self, module: Path, tenant: str) -> object:
        return await self.modules.linkage(module, tenant)

    def new_guest(self, order: GuestOrder) -> ProgramGuest:
        return ProgramGuest(
            self._program(order),
            modules=self.modules,
            scheduler=order.scheduler,
            output=order.output,
        )

    def new_command(self, order: GuestOrder) -> ProgramCommand:
        return ProgramCommand(
            self._program(order),
            order.command,
            modules=self.modules,
            scheduler=order.scheduler,
            output=order.output,
        )

    def _program(self, order: GuestOrder) -> Program:
        return Program(
            file=order.app_tree / order.entrypoint,
            app_tree=order.app_tree,
            tmp=order.tmp,
            env=order.env,
            memory_bytes=order.memory_mib << 20,
            disk_bytes=order.disk_mib << 20,
            share=order.share,
            clock_step_ns=self.clock_step_ns,
            volumes=order.volumes,
            world=order.world,
            app=order.app,
        )


def runtime() -> WasiLanguage:
    """Found by `isopod.runtimes`."""
    return WasiLanguage()
