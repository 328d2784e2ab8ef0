"""Which file of a folder is a reactor: a WebAssembly module that exports what our ABI asks for."""

from __future__ import annotations

from pathlib import Path

from isopod.engine.machine_code import MAX_MODULE_BYTES
from isopod.engine.sections import EXPORT, FUNCTION_KIND, body_of, exports, split
from isopod.errors import AppNotDetected
from isopod.manifest import Manifest
from isopod.runtimes.base import Claim
from isopod.runtimes.reactor import abi

_SUFFIX = ".wasm"


def claim(folder: Path, manifest: Manifest) -> Claim:
    """Sure of what exports the function that takes requests; of nothing else."""
    try:
        detect(folder, manifest)
    except AppNotDetected:
        return Claim.NO
    return Claim.SURE


def detect(folder: Path, manifest: Manifest) -> str:
    """The module's path, relative to `folder`. Raises AppNotDetected."""
    found = [path.name for path in sorted(folder.glob(f"*{_SUFFIX}")) if path.is_file()]
    if (said := manifest.entrypoint) is not None:
        found = [said] if said.endswith(_SUFFIX) and _inside(folder, said) else []
    reactors = [name for name in found if abi.HANDLE in functions_of(folder / name)]
    if len(reactors) > 1:
        raise AppNotDetected(
            f"there are {len(reactors)} reactors: {', '.join(reactors[:10])}",
            hint="leave one in the folder",
            details={"modules": reactors},
        )
    if not reactors:
        raise AppNotDetected(f"there is no WebAssembly module that exports {abi.HANDLE!r}")
    return reactors[0]


def _inside(folder: Path, said: str) -> bool:
    path = (folder / said).resolve()
    return path.is_relative_to(folder.resolve()) and path.is_file()


def functions_of(path: Path) -> set[str]:
    """Those that a module exports; none of what is no module."""
    try:
        with path.open("rb") as file:
            parts = split(file.read(MAX_MODULE_BYTES))
        found = exports(body_of(parts, EXPORT))
        return {name for name, kind, _ in found if kind == FUNCTION_KIND}
    except (OSError, ValueError, IndexError):
        return set()
