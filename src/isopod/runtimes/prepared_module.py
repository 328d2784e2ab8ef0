"""A runtime's own module, compiled once for the machine by `isopod runtimes prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isopod.engine.config import Engine, EngineSettings
from isopod.engine.linker import HostImport, Linkage
from isopod.engine.module_cache import ModuleCache
from isopod.errors import RuntimeNotPrepared
from isopod.model.ids import Digest


def load_prepared(
    cache_dir: Path,
    *,
    language: str,
    name: str,
    module: Digest,
    folder: Path,
    engine: Engine | None,
    imports: Sequence[HostImport] = (),
) -> Linkage:
    """`folder`: what else was prepared. `engine`: a worker's, which other runtimes use too. Raises
    RuntimeNotPrepared."""
    settings = EngineSettings()
    compiled = ModuleCache(cache_dir / "modules", settings).entry(module)
    if compiled is None or not folder.is_dir():
        raise RuntimeNotPrepared(
            f"the {language} runtime is not prepared on this node",
            hint=f"run `isopod runtimes prepare {name}`",
        )
    return Linkage.load(compiled, settings, engine, imports)
