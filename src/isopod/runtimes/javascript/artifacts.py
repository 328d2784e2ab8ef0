"""Where QuickJS for WASI, esbuild and the polyfills come from: npm packages, by version and digest.

Prepared, they become `<cache>/runtimes/javascript-<digest>/`: `quickjs.wasm` (with our functions
grafted onto it), `prelude.js` (the Web platform, bundled), `esbuild`, `base.image` (the memory of a
guest that has run the prelude: every app starts from it) and `facts.json` (where it keeps what).
"""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path

from isopod.engine.config import EngineSettings, fingerprint
from isopod.errors import RuntimePrepareFailed
from isopod.model.ids import Digest
from isopod.runtimes.npm_packages import Package

GUEST_FILES = Path(__file__).parent / "guest"
MODULE, PRELUDE, ESBUILD = "quickjs.wasm", "prelude.js", "esbuild"
BASE_IMAGE, FACTS = "base.image", "facts.json"
VERSION = "0.12 (quickjs-wasi 3.6.2)"
LICENCE = "MIT (QuickJS-NG, quickjs-wasi, esbuild, and the polyfills)"
_FORMAT = 1  # raise it when the prepared folder changes in a way that no digest shows


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
    Package(  # zlib, for CompressionStream
        "pako",
        "3.0.3",
        "tmrebBBYI5FOw8QICGwJNqE8fotC8R+gwcxOvoFNv+GKehOI6Lc6YBolNcQNnC4v96l1wt7rh102ifD4kVeZAQ==",
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
