"""Whether a folder holds a Rack app: it has a config.ru. Nothing is run."""

from __future__ import annotations

from pathlib import Path

from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim

CONFIG = "config.ru"
_HINT = "write a config.ru that ends with `run` and the app, such as `run Sinatra::Application`"


def claim(folder: Path, manifest: Manifest) -> Claim:  # noqa: ARG001  the folder says it all
    if (folder / CONFIG).is_file():
        return Claim.SURE
    return Claim.MAYBE if _is_ruby(folder) else Claim.NO


def detect(folder: Path, manifest: Manifest) -> str:  # noqa: ARG001
    """The file, relative to `folder`. Raises AppNotDetected."""
    if (folder / CONFIG).is_file():
        return CONFIG
    found = sorted(path.name for path in folder.glob("*.rb"))[:20]
    raise AppNotDetected(
        "there is no config.ru",
        hint=_HINT if _is_ruby(folder) else "",
        details={"looked_at": found} if found else {},
    )


def _is_ruby(folder: Path) -> bool:
    return (folder / "Gemfile").is_file() or any(folder.glob("*.rb"))
