"""uv.lock: exact versions, as uv exports them, fitted to what the runtime bundles.

A lock file pins MarkupSafe or NumPy at the version of the day it was made. Where such a pin has
no pure wheel, the bundled distribution takes its place if the project's own requirement allows
it; without that no locked project that uses Flask could be deployed.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from isopod.errors import DependencyInvalid
from isopod.runtimes.python.bundled import applies, bundled
from isopod.runtimes.python.requirements import (
    Line,
    Requirements,
    load_pyproject,
    parse_text,
    read_pyproject,
)
from isopod.runtimes.python.uv import Uv

_NAME = "uv.lock"


def read_lock(folder: Path, uv: Uv) -> Requirements:
    """The locked requirements of the project in `folder`. Raises `DependencyInvalid`."""
    load_pyproject(folder)  # says what is wrong better than uv
    # Only the two files: nothing else of the app configures uv.
    with tempfile.TemporaryDirectory(prefix="isopod-lock-") as copy:
        for name in ("pyproject.toml", _NAME):
            shutil.copyfile(folder / name, Path(copy) / name)
        done = uv.export(Path(copy))
        if not done.ok:
            raise DependencyInvalid(
                f"{_NAME} cannot be read: {done.said.replace(copy, '.')}",
                hint="run `uv lock` in the app's folder",
                details={"file": _NAME},
            )
        found = parse_text(done.out, _NAME)
    found.lines = [line for line in found.lines if applies(line.requirement.marker)]
    _fit(found, folder)
    return found


def _fit(found: Requirements, folder: Path) -> None:
    pure = set(_pure_wheels(folder))
    wanted = _direct(folder)
    for number, line in enumerate(found.lines):
        one = bundled().get(line.name)
        pin = _pinned(line.requirement)
        if one is None or pin is None or pin == one.version or (line.name, pin) in pure:
            continue
        # The project's own bounds stay: the resolver says so if the bundled version breaks them.
        bound = wanted.get(line.name, SpecifierSet())
        text = line.requirement.name + (f"{bound}" if str(bound) else "")
        found.lines[number] = replace(line, requirement=Requirement(text), hashes=())
        found.notes.append(f"{one.name} {one.version} of the runtime for the locked {pin}")


def _pinned(requirement: Requirement) -> str | None:
    specifiers = list(requirement.specifier)
    if len(specifiers) == 1 and specifiers[0].operator == "==":
        return specifiers[0].version
    return None


def _pure_wheels(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, version) of each locked package that has a wheel for every platform."""
    try:
        body: dict[str, Any] = tomllib.loads((folder / _NAME).read_text(errors="replace"))
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return
    for package in body.get("package", []):
        for wheel in package.get("wheels", []):
            address = str(wheel.get("url") or wheel.get("filename") or wheel.get("path") or "")
            if address.endswith("-none-any.whl"):
                yield canonicalize_name(str(package.get("name"))), str(package.get("version"))


def _direct(folder: Path) -> dict[str, SpecifierSet]:
    try:
        lines: list[Line] = read_pyproject(folder).lines
    except DependencyInvalid:
        return {}
    bounds: dict[str, SpecifierSet] = {}
    for line in lines:
        if applies(line.requirement.marker):
            bounds[line.name] = bounds.get(line.name, SpecifierSet()) & line.requirement.specifier
    return bounds
