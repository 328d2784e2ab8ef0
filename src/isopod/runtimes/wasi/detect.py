"""Which file of a folder is its program: a WebAssembly module that isopod.toml names, or the only
one there is."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.sections import EXPORT, body_of, exports, split
from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim

SUFFIX = ".wasm"
START = "_start"
_MAX_BYTES = 64 << 20
_HINT = 'isopod.toml names the module: [app] runtime = "wasi", entrypoint = "hello.wasm"'


def claim(folder: Path, manifest: Manifest) -> Claim:
    """Sure of a module that is a program; others may be a part of an app in another language."""
    if manifest.entrypoint is not None and not manifest.entrypoint.endswith(SUFFIX):
        return Claim.NO
    try:
        name = detect(folder, manifest)
    except AppNotDetected:
        return Claim.MAYBE if _modules(folder) else Claim.NO
    return Claim.SURE if _is_program(folder / name) else Claim.MAYBE


def detect(folder: Path, manifest: Manifest) -> str:
    """The module's path, relative to `folder`. Raises AppNotDetected."""
    said = manifest.entrypoint
    if said is not None:
        path = (folder / said).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise AppNotDetected(
                f"there is no file {said!r}, which isopod.toml names",
                hint="compile it first: what is deployed is the .wasm file (and where .gitignore"
                " leaves it out, .isopodignore with !*.wasm puts it back)",
            )
        return path.relative_to(folder.resolve()).as_posix()
    found = _modules(folder)
    if not found:
        raise AppNotDetected("there is no WebAssembly module (*.wasm)")
    if len(found) > 1:
        raise AppNotDetected(
            f"there are {len(found)} WebAssembly modules: {', '.join(found[:10])}",
            hint=_HINT,
            details={"modules": found},
        )
    return found[0]


def _modules(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*{SUFFIX}") if path.is_file())


def _is_program(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            sections = split(file.read(_MAX_BYTES))
        return any(name == START for name, _, _ in exports(body_of(sections, EXPORT)))
    except (OSError, ValueError, IndexError):
        return False
