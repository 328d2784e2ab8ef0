"""Make the JavaScript runtime ready on this machine: fetch, verify, bundle, compile, boot."""

from __future__ import annotations

import shutil
from pathlib import Path

from isopod.engine.config import EngineSettings
from isopod.engine.graft import graft
from isopod.engine.module_cache import ModuleCache, Progress
from isopod.errors import RuntimePrepareFailed, disk_full_is_clear
from isopod.model.runtime import RuntimeInfo
from isopod.runtimes.javascript import artifacts, ground
from isopod.runtimes.javascript.artifacts import (
    BASE_IMAGE,
    ESBUILD,
    GUEST_FILES,
    MODULE,
    PRELUDE,
)
from isopod.runtimes.javascript.esbuild import bundle
from isopod.runtimes.npm_packages import fetch
from isopod.runtimes.whole_folder import whole_folder


def info(cache_dir: Path) -> RuntimeInfo:
    """What `isopod runtimes` shows. Cheap: hashes nothing that is large."""
    folder = artifacts.folder(cache_dir)
    compiled = _cache(cache_dir).entry(artifacts.module_digest())
    prepared = compiled is not None and (folder / BASE_IMAGE).is_file()
    return RuntimeInfo(
        name="javascript",
        version=artifacts.VERSION,
        digest=artifacts.runtime_digest(),
        size_bytes=compiled.stat().st_size if compiled else 0,
        prepared=prepared,
        licence=artifacts.LICENCE,
        module=artifacts.module_digest(),
    )


def prepare(cache_dir: Path, progress: Progress) -> None:
    """Some seconds the first time, most of them npm's. Raises RuntimePrepareFailed or DiskFull."""
    folder = artifacts.folder(cache_dir)
    with disk_full_is_clear(str(cache_dir)):
        if not folder.is_dir():
            _make_folder(folder, progress)
        _cache(cache_dir).ensure(folder / MODULE, artifacts.module_digest(), progress)
        if not (folder / BASE_IMAGE).is_file():
            ground.prepare(cache_dir, folder)
    progress(1.0, f"QuickJS {artifacts.VERSION} is ready")


def _cache(cache_dir: Path) -> ModuleCache:
    return ModuleCache(cache_dir / "modules", EngineSettings())


def _make_folder(target: Path, progress: Progress) -> None:
    with whole_folder(target) as temporary:
        work = temporary / "work"
        packages = (artifacts.QUICKJS, artifacts.esbuild_package(), *artifacts.POLYFILLS)
        for number, package in enumerate(packages):
            progress(0.5 * number / len(packages), f"fetching {package.name}")
            fetch(package, work / "node_modules" / package.name)
        modules = work / "node_modules"
        program = modules / artifacts.esbuild_package().name / "bin" / "esbuild"
        shutil.copyfile(program, temporary / ESBUILD)
        (temporary / ESBUILD).chmod(0o755)
        module = (modules / artifacts.QUICKJS.name / MODULE).read_bytes()
        functions = (GUEST_FILES / "turns.wat").read_text()
        (temporary / MODULE).write_bytes(graft(module, functions))
        shutil.copytree(GUEST_FILES, work / "guest")
        done = bundle(
            temporary / ESBUILD,
            "guest/prelude.js",
            temporary / PRELUDE,
            *("--format=iife", "--minify", "--keep-names"),
            folder=work,
        )
        if done.complaints:
            raise RuntimePrepareFailed(
                f"the prelude cannot be bundled: {done.complaints[0].text}",
                details={"said": done.said},
            )
        shutil.rmtree(work)
