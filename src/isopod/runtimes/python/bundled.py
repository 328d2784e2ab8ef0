"""The distributions inside the runtime's standard library zip: NumPy, pandas, MarkupSafe...

Many of them have no pure wheel, so an app can only get them from here. `plant` makes a resolver
see them as installed; `unplant` takes that away again, because in a guest `importlib.metadata`
finds the zip's own entries, and two entries for one distribution would contradict each other.
"""

from __future__ import annotations

import email.parser
import functools
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from isopod.runtimes.python import artifacts

_INSTALLER = "isopod-bundled\n"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution. `name` is canonical: lower case, with "-"."""

    name: str
    version: str
    folder: str  # NAME-VERSION.dist-info
    metadata: bytes

    @property
    def requires(self) -> tuple[str, ...]:
        return tuple(_headers(self.metadata).get_all("Requires-Dist", []))


def distribution(folder: str, metadata: bytes) -> Distribution:
    """Raises ValueError when the metadata names no distribution."""
    headers = _headers(metadata)
    if not headers["Name"] or not headers["Version"]:
        raise ValueError(f"{folder} names no distribution")
    return Distribution(canonicalize_name(headers["Name"]), headers["Version"], folder, metadata)


def _headers(metadata: bytes) -> email.message.Message:
    return email.parser.BytesHeaderParser().parsebytes(metadata)


@functools.cache
def bundled() -> Mapping[str, Distribution]:
    """By canonical name."""
    found = {}
    with zipfile.ZipFile(artifacts.artifacts().stdlib) as archive:
        for path in archive.namelist():
            folder, _, rest = path.partition("/")
            if folder.endswith(".dist-info") and rest == "METADATA":
                one = distribution(folder, archive.read(path))
                found[one.name] = one
    return found


def plant(site: Path) -> None:
    """Make `site` look as if the bundled distributions were installed there."""
    for one in bundled().values():
        folder = site / one.folder
        folder.mkdir(parents=True)
        (folder / "METADATA").write_bytes(one.metadata)
        (folder / "INSTALLER").write_text(_INSTALLER)
        (folder / "RECORD").write_text("")  # owns no files: removing it removes nothing else


def unplant(site: Path) -> None:
    for one in bundled().values():
        marker = site / one.folder / "INSTALLER"
        # uv replaced it where the app asks for another version; an emptied folder may be left.
        if not marker.is_file() or marker.read_text() == _INSTALLER:
            shutil.rmtree(site / one.folder, ignore_errors=True)


@functools.cache
def guest_markers() -> dict[str, str]:
    """PEP 508's environment of a guest. The platform is what uv resolves for: see `uv.TARGET`."""
    full = artifacts.artifacts().version
    python = ".".join(full.split(".")[:2])
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": "wasm32",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Emscripten",
        "platform_version": "",
        "python_full_version": full,
        "python_version": python,
        "sys_platform": "emscripten",
        "extra": "",
    }


def applies(marker: Marker | None, extras: Iterable[str] = ()) -> bool:
    """Whether a requirement with this marker counts for a guest."""
    if marker is None:
        return True
    return any(marker.evaluate({**guest_markers(), "extra": extra}) for extra in ("", *extras))


def in_use(roots: Iterable[Requirement], installed: Iterable[Distribution]) -> list[Distribution]:
    """The bundled distributions that `roots` need, directly or through others."""
    own = {one.name: one for one in installed}
    used: dict[str, Distribution] = {}
    waiting = [(canonicalize_name(r.name), frozenset(r.extras)) for r in roots if applies(r.marker)]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        one = own.get(name) or bundled().get(name)
        if one is None or (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in own:
            used[name] = one
        for text in one.requires:
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue
            if applies(needed.marker, extras):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return sorted(used.values(), key=lambda one: one.name)
