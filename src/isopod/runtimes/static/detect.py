"""Which folder of an app's is its site.

[static] root in isopod.toml; else the output of a front-end's build, where there is a package.json;
else the folder itself if it has an index.html.
"""

from __future__ import annotations

import json
from pathlib import Path

from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim

_HOME = "index.html"
_OUTPUTS = ("dist", "build", "out", "public")
_MAX_PACKAGE_JSON = 1 << 20
_BUILD_HINT = (
    "build it first; when .gitignore lists the output, `isopod deploy dist` deploys it alone, or a "
    "line `!dist/` in .isopodignore packs it"
)


def claim(folder: Path, manifest: Manifest) -> Claim:
    """Never sure unless the manifest says so: an app of any language may hold an index.html, and
    its sources are not to be published."""
    if manifest.static_root is not None or manifest.static_spa is not None:
        return Claim.SURE
    if manifest.static_paths:
        return Claim.NO
    return Claim.MAYBE if (folder / _HOME).is_file() or _output(folder) else Claim.NO


def detect(folder: Path, manifest: Manifest) -> str:
    """The site's folder, relative to `folder`; "." for itself. Raises AppNotDetected."""
    if manifest.static_paths:
        path, name = next(iter(manifest.static_paths.items()))
        raise AppNotDetected(
            f"[static] {path!r} is served beside an app, and the folder holds none",
            hint=f'[static] root = "{name}" makes a site of that folder alone',
        )
    if manifest.static_root is not None:
        if not (folder / manifest.static_root).is_dir():
            raise AppNotDetected(
                f"[static] root: there is no folder {manifest.static_root!r}",
                hint="files that .gitignore lists are not deployed; see .isopodignore",
                details={"looked_at": [manifest.static_root]},
            )
        return manifest.static_root
    output = _output(folder)
    if output:
        return output
    if _has_build_script(folder):
        raise AppNotDetected(
            "package.json has a build script, and none of "
            f"{', '.join(f'{name}/{_HOME}' for name in _OUTPUTS)} is there",
            hint=_BUILD_HINT,
        )
    if not (folder / _HOME).is_file():
        raise AppNotDetected(f"there is no {_HOME}", hint="")
    return "."


def _output(folder: Path) -> str:
    if not (folder / "package.json").is_file():
        return ""
    return next((name for name in _OUTPUTS if (folder / name / _HOME).is_file()), "")


def _has_build_script(folder: Path) -> bool:
    try:
        with (folder / "package.json").open("rb") as file:
            body = json.loads(file.read(_MAX_PACKAGE_JSON))
        return "build" in body["scripts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
