"""The language runtimes of this node: what there is, and what is prepared."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isopod.model.ids import Digest
from isopod.model.principal import Principal


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """A runtime as the API shows it."""

    name: str
    version: str
    digest: str
    size_bytes: int
    prepared: bool
    licence: str
    module: str = ""  # as in RuntimeInfo


def installed(cache_dir: Path) -> list[RuntimeStatus]:
    """Every runtime this isopod knows."""
    from isopod import runtimes  # here: they load the engine, which most requests do not need

    found = []
    for runtime in runtimes.known():
        info = runtime.info(cache_dir)
        found.append(
            RuntimeStatus(
                name=info.name,
                version=info.version,
                digest=info.digest,
                size_bytes=info.size_bytes,
                prepared=info.prepared,
                licence=info.licence,
                module=info.module,
            )
        )
    return found


def image_digest(name: str) -> Digest:
    """What the memory images of runtime `name` belong to now. RuntimeNotFound."""
    from isopod import runtimes

    return runtimes.known().get(name).image_digest()


class Catalog:
    """The runtimes over one cache folder. `find` and `images` are `installed` and `image_digest`,
    but in tests."""

    def __init__(
        self,
        cache_dir: Path,
        find: Callable[[Path], list[RuntimeStatus]] = installed,
        images: Callable[[str], Digest] = image_digest,
    ) -> None:
        self._cache_dir = cache_dir
        self._find = find
        self._images = images
        self._digest = ""

    def all(self) -> list[RuntimeStatus]:
        return self._find(self._cache_dir)

    def image_digest(self, runtime: str) -> Digest:
        """RuntimeNotFound. Loads the engine."""
        return self._images(runtime)

    def digest(self) -> str:
        """Differs when any runtime does: then earlier builds cannot be taken again."""
        if not self._digest:
            text = "\n".join(f"{one.name} {one.version} {one.digest}" for one in self.all())
            self._digest = hashlib.sha256(text.encode()).hexdigest()
        return self._digest


async def list_runtimes(who: Principal, *, catalog: Catalog) -> list[RuntimeStatus]:
    who.need("read")
    return await asyncio.to_thread(catalog.all)
