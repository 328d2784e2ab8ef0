"""Which file of a folder is its worker: an ES module with a default export that has `fetch`.

package.json's "main" or "module"; else the first of the usual names that is there, but for what is
in the src/ of a site that is built. Nothing is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim

_NAMES = ("index", "worker", "app", "main", "server")
_SUFFIXES = (".js", ".mjs", ".ts")
_ROOTS = ("", "src/")
_PAGES = ("index.html", "public/index.html")
_MAX_SOURCE = 16 << 20
_MAX_PACKAGE_JSON = 1 << 20
_DEFAULT_EXPORT = re.compile(rb"(?:^|[;}])[ \t]*export\s+default\b|\bas\s+default\b", re.MULTILINE)
_HINT = "an app is a module with `export default { async fetch(request, env, ctx) { ... } }`"


def claim(folder: Path, manifest: Manifest) -> Claim:  # noqa: ARG001  the folder says it all
    """Sure of a module that exports something by default, where a package.json or a worker's name
    says that it is the app."""
    found = _candidates(folder)
    if not found:
        return Claim.NO
    return Claim.SURE if any(_exports_default(folder / name) for name in found) else Claim.MAYBE


def detect(folder: Path, manifest: Manifest) -> str:  # noqa: ARG001
    """The module's path, relative to `folder`. Raises AppNotDetected."""
    found = _candidates(folder)
    for name in found:
        if _exports_default(folder / name):
            return name
    if found:
        raise AppNotDetected(
            f"{found[0]!r} has no default export", hint=_HINT, details={"looked_at": found}
        )
    names = ", ".join(f"{name}.js" for name in _NAMES)
    raise AppNotDetected(f"there is no JavaScript module ({names}, or package.json's main)")


def package_json(folder: Path) -> dict[str, Any]:
    """What package.json says; nothing if there is none, or it is not what npm would read."""
    try:
        with (folder / "package.json").open("rb") as file:
            body = json.loads(file.read(_MAX_PACKAGE_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _candidates(folder: Path) -> list[str]:
    """In the order in which they count."""
    body = package_json(folder)
    found = []
    for key in ("main", "module"):
        said = body.get(key)
        if isinstance(said, str) and said.endswith(_SUFFIXES):
            path = (folder / said).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                found.append(path.relative_to(folder.resolve()).as_posix())
    # What a build makes a site of for browsers begins in src/, too: Vite's src/main.ts.
    for root in _ROOTS[:1] if _is_front_end(folder, body) else _ROOTS:
        for name in _NAMES:
            for suffix in _SUFFIXES:
                relative = f"{root}{name}{suffix}"
                if (folder / relative).is_file() and relative not in found:
                    found.append(relative)
    return found


def _is_front_end(folder: Path, body: dict[str, Any]) -> bool:
    scripts = body.get("scripts")
    return (
        isinstance(scripts, dict)
        and "build" in scripts
        and any((folder / page).is_file() for page in _PAGES)
    )


def _exports_default(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(_DEFAULT_EXPORT.search(file.read(_MAX_SOURCE)))
    except OSError:
        return False
