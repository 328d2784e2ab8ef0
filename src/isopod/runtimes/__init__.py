"""Language runtimes: how each detects an app, builds it, boots it and speaks requests with it.

A runtime is a package below this one; `get` finds it by name. Nothing outside `runtimes` asks which
language an app is in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isopod.errors import RuntimeNotFound
from isopod.runtimes.base import Runtime

_NAMES = ("python",)


def names() -> tuple[str, ...]:
    return _NAMES


def get(name: str) -> Runtime:
    """Raises RuntimeNotFound. Importing a runtime loads the engine, so it happens here."""
    if name == "python":
        from isopod.runtimes.python.language import PythonLanguage

        return PythonLanguage()
    raise RuntimeNotFound(f"there is no runtime {name!r}; there are: {', '.join(_NAMES)}")


def prepare(name: str, cache_dir: Path, progress: Callable[[float, str], None]) -> None:
    """Make a runtime ready on this machine; see its `prepare`."""
    get(name).prepare(cache_dir, progress)
