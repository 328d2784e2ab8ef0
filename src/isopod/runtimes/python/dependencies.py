"""Install an app's dependencies for the guest's Python, as pure wheels, and say what they are.

The result is a folder that holds sources and metadata only: nothing in it depends on this
machine, on the time or on where it was made, so equal installations are equal bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from isopod.errors import DependencyInvalid, IsopodError
from isopod.model.ids import Digest
from isopod.runtimes.installed import Installed
from isopod.runtimes.python.bundled import Distribution, distribution, in_use, plant, unplant
from isopod.runtimes.python.diagnose import Native, diagnose, native_only
from isopod.runtimes.python.lock import read_lock
from isopod.runtimes.python.requirements import Requirements, read_folder
from isopod.runtimes.python.uv import Uv

# What an installation writes that says when, where or how; the guest reads none of it.
_LEFT_BEHIND = ("bin", "Scripts", ".lock", ".gitignore", "CACHEDIR.TAG")
_LOCAL_METADATA = frozenset({"REQUESTED", "INSTALLER", "uv_cache.json", "direct_url.json"})


def install(folder: Path, site: Path, *, cache_dir: Path) -> Installed:
    """Install what the app in `folder` asks for into `site`, which is new or empty.

    Raises `DependencyInvalid`, `DependencyNotFound`, `DependencyConflict`,
    `DependencyNativeOnly`, `DependencyFailed`.
    """
    uv = Uv(cache_dir)
    requirements = read_folder(folder)
    if requirements is None:
        requirements = read_lock(folder, uv)
    site.mkdir(parents=True, exist_ok=True)
    if requirements.lines:
        _run(requirements, site, uv)
    own = list(_distributions(site))
    _check_pure(site, own)
    _tidy(site, own)
    used = in_use([line.requirement for line in requirements.lines], own)
    names = tuple(sorted((one.name, one.version) for one in [*own, *used]))
    return Installed(names, _fingerprint(site, own), _text(requirements, own, used))


def _run(requirements: Requirements, site: Path, uv: Uv) -> None:
    plant(site)
    with tempfile.TemporaryDirectory(prefix="isopod-requirements-") as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{line.text}\n" for line in requirements.lines))
        options = []
        if requirements.constraints:
            constraints = Path(folder) / "constraints.txt"
            text = "".join(f"{line.requirement}\n" for line in requirements.constraints)
            constraints.write_text(text)
            options += ["-c", str(constraints)]
        if requirements.prereleases:
            options += ["--prerelease", "allow"]
        if requirements.require_hashes:
            options += ["--require-hashes"]
        done = uv.install(site, file, *options)
    if not done.ok:
        raise _failure(requirements, done.said, uv)
    unplant(site)


def _failure(requirements: Requirements, said: str, uv: Uv) -> IsopodError:
    if "hash mismatch" in said.lower() or "--require-hashes" in said:
        return DependencyInvalid(
            f"{requirements.source}: a dependency does not have the hash that is stated: {said}",
            hint="make the file again, from an index that you trust",
            details={"file": requirements.source, "said": said},
        )
    return diagnose(requirements, said, uv)


def _distributions(site: Path) -> Iterator[Distribution]:
    for folder in sorted(site.glob("*.dist-info")):
        metadata = folder / "METADATA"
        if not metadata.is_file():
            continue
        try:
            yield distribution(folder.name, metadata.read_bytes())
        except ValueError as error:
            raise DependencyInvalid(f"a dependency is no proper wheel: {error}") from error


def _check_pure(site: Path, own: list[Distribution]) -> None:
    """A wheel for Pyodide installs, but its machine code is for another host."""
    native = []
    for one in own:
        wheel = site / one.folder / "WHEEL"
        lines = wheel.read_text(errors="replace").splitlines() if wheel.is_file() else []
        tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
        if not tags or not all(tag.endswith("-none-any") for tag in tags):
            native.append(Native(one.name, one.version, ""))
    if native:
        raise native_only(native)


def _tidy(site: Path, own: list[Distribution]) -> None:
    for name in _LEFT_BEHIND:
        path = site / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in list(site.rglob("__pycache__")):
        shutil.rmtree(path)
    for pattern in ("*.so", "*.pyd", "*.dylib"):
        for path in list(site.rglob(pattern)):
            path.unlink()
    for one in own:
        for name in _LOCAL_METADATA:
            (site / one.folder / name).unlink(missing_ok=True)
        _prune_record(site, site / one.folder / "RECORD")


def _prune_record(site: Path, record: Path) -> None:
    """Keep the lines of files that are still there, sorted."""
    if not record.is_file():
        return
    rows = csv.reader(io.StringIO(record.read_text(errors="surrogateescape")))
    kept = sorted(row for row in rows if row and (site / row[0]).is_file())
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(kept)
    record.write_text(out.getvalue(), errors="surrogateescape")


def _fingerprint(site: Path, own: list[Distribution]) -> Digest:
    """RECORD holds the sha256 of every file, so its digest stands for them."""
    body = []
    for one in own:
        record = site / one.folder / "RECORD"
        data = record.read_bytes() if record.is_file() else b""
        body.append([one.name, one.version, hashlib.sha256(data).hexdigest()])
    return Digest(hashlib.sha256(json.dumps(sorted(body)).encode()).hexdigest())


def _text(requirements: Requirements, own: list[Distribution], used: list[Distribution]) -> str:
    if not requirements.source:
        return "No dependencies: there is no requirements.txt, pyproject.toml or uv.lock"
    text = f"{len(own)} installed from {requirements.source}"
    if used:
        text += f", {len(used)} from the runtime ({', '.join(one.name for one in used)})"
    return "; ".join([text, *requirements.notes])
