"""Which package of a Go module is the app: the one that is a program. Nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim

_PACKAGE = re.compile(r"^package[ \t]+(\w+)", re.MULTILINE)
_MAX_SOURCE = 4 << 20


def claim(folder: Path, manifest: Manifest) -> Claim:  # noqa: ARG001  the folder says it all
    if not (folder / "go.mod").is_file():
        return Claim.NO
    return Claim.SURE if _programs(folder) else Claim.MAYBE


def detect(folder: Path, manifest: Manifest) -> str:  # noqa: ARG001
    """The package's folder as Go names it: ".", or "./cmd/name". Raises AppNotDetected."""
    if not (folder / "go.mod").is_file():
        raise AppNotDetected("there is no go.mod")
    found = _programs(folder)
    if not found:
        raise AppNotDetected(
            "the Go module has no package main, in its folder or in a folder of cmd/",
            hint="write main.go with `package main` and a func main() that calls isopod.Serve",
        )
    if found[0] != "." and len(found) > 1:
        raise AppNotDetected(
            f"the Go module has {len(found)} programs: {', '.join(found[:10])}",
            hint="deploy a folder with one of them",
            details={"programs": found},
        )
    return found[0]


def _programs(folder: Path) -> list[str]:
    """The module's own folder first."""
    found = ["."] if _is_program(folder) else []
    below = sorted(path for path in folder.glob("cmd/*/") if path.is_dir())
    return found + [f"./cmd/{path.name}" for path in below if _is_program(path)]


def _is_program(folder: Path) -> bool:
    return any(
        _package(path) == "main"
        for path in folder.glob("*.go")
        if path.is_file() and not path.name.endswith("_test.go")
    )


def _package(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _PACKAGE.search(file.read(_MAX_SOURCE))
    except OSError:
        return ""
    return found[1] if found else ""
