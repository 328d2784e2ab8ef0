"""Language runtimes: how each detects an app, builds it, boots it and speaks requests with it.

A runtime is a package below this one whose module `language` has a function `runtime`, or an entry
point of the group "isopod.runtimes" that names such a function. Nothing outside of its package
asks which language an app is in.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from isopod.runtimes.base import Runtime
from isopod.runtimes.registry import Registry

_GROUP = "isopod.runtimes"


def known() -> Registry:
    """Every runtime of this installation, by its name. None is imported before it is asked for."""
    found = {one.name: _from(one) for one in entry_points(group=_GROUP)}
    # Ours last: no other distribution replaces them.
    found |= {one.name: _below(one.name) for one in pkgutil.iter_modules(__path__) if one.ispkg}
    return Registry(found)


def prepare(name: str, cache_dir: Path, progress: Callable[[float, str], None]) -> None:
    """Make a runtime ready on this machine; see its `prepare`."""
    known().get(name).prepare(cache_dir, progress)


def _below(name: str) -> Callable[[], Runtime]:
    def make() -> Runtime:
        made: Runtime = import_module(f"{__name__}.{name}.language").runtime()
        return made

    return make


def _from(point: EntryPoint) -> Callable[[], Runtime]:
    def make() -> Runtime:
        made: Runtime = point.load()()
        return made

    return make
