"""Make the Ruby runtime ready on this machine: fetch, verify, graft, compile."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from isopod.engine.config import EngineSettings
from isopod.engine.graft import graft
from isopod.engine.image import write_sparse
from isopod.engine.module_cache import ModuleCache, Progress
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import disk_full_is_clear
from isopod.model.runtime import RuntimeInfo
from isopod.runtimes.npm_packages import fetch
from isopod.runtimes.ruby import artifacts
from isopod.runtimes.ruby.artifacts import BASE_IMAGE, GUEST, MODULE
from isopod.runtimes.ruby.runtime import fresh_memory, load
from isopod.runtimes.whole_folder import whole_folder


def info(cache_dir: Path) -> RuntimeInfo:
    """What `isopod runtimes` shows. Cheap: hashes nothing that is large."""
    compiled = _cache(cache_dir).entry(artifacts.module_digest())
    there = (artifacts.folder(cache_dir) / BASE_IMAGE).is_file()
    return RuntimeInfo(
        name="ruby",
        version=artifacts.VERSION,
        digest=artifacts.runtime_digest(),
        size_bytes=compiled.stat().st_size if compiled else 0,
        prepared=compiled is not None and there,
        licence=artifacts.LICENCE,
        module=artifacts.module_digest(),
    )


def prepare(cache_dir: Path, progress: Progress) -> None:
    """A minute the first time. Raises RuntimePrepareFailed or DiskFull."""
    folder = artifacts.folder(cache_dir)
    with disk_full_is_clear(str(cache_dir)):
        if not folder.is_dir():
            progress(0.0, f"fetching {artifacts.RUBY.name}")
            _make_folder(folder)
        _cache(cache_dir).ensure(folder / MODULE, artifacts.module_digest(), progress)
        if not (folder / BASE_IMAGE).is_file():
            _make_base(cache_dir, folder)
    progress(1.0, f"Ruby {artifacts.VERSION} is ready")


def _cache(cache_dir: Path) -> ModuleCache:
    return ModuleCache(cache_dir / "modules", EngineSettings())


def _make_folder(target: Path) -> None:
    with whole_folder(target) as temporary:
        work = temporary / "work"
        fetch(artifacts.RUBY, work, only=(artifacts.IN_PACKAGE,))
        module = (work / artifacts.IN_PACKAGE).read_bytes()
        (temporary / MODULE).write_bytes(graft(module, artifacts.GRAFT.read_text()))
        shutil.copytree(artifacts.GUEST_FILES, temporary / GUEST)
        shutil.rmtree(work)


def _make_base(cache_dir: Path, folder: Path) -> None:
    linkage = load(cache_dir)

    async def make(scheduler: Scheduler) -> bytes:
        return await fresh_memory(linkage, scheduler)

    memory = in_scheduler(linkage.engine, make)
    temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        write_sparse(memory, temporary)
        temporary.replace(folder / BASE_IMAGE)
    finally:
        temporary.unlink(missing_ok=True)
