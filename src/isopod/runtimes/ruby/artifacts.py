"""Where Ruby for WASI comes from: the npm package of ruby.wasm, by version and digest.

Prepared, it becomes `<cache>/runtimes/ruby-<digest>/`: `ruby.wasm` (the interpreter with its
standard library, our functions grafted onto it), `guest` (our Ruby files, which guests see) and
`base.image` (the memory of an instance that has not run yet: images store what differs).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from isopod.engine.config import EngineSettings, fingerprint
from isopod.model.ids import Digest
from isopod.runtimes.npm_packages import Package

HERE = Path(__file__).parent
GRAFT = HERE / "graft" / "init.wat"
GUEST_FILES = HERE / "guest"
MODULE, GUEST, BASE_IMAGE = "ruby.wasm", "guest", "base.image"
IN_PACKAGE = "dist/ruby+stdlib.wasm"
VERSION = "4.0.0 (ruby.wasm 2.10.1)"
LICENCE = "Ruby or BSD-2-Clause (Ruby), MIT (ruby.wasm), and those in its NOTICE"
_FORMAT = 1  # raise it when the prepared folder changes in a way that no digest shows

RUBY = Package(
    "@ruby/4.0-wasm-wasi",
    "2.10.1",
    "ObIFKo4CyXJFWtJU2BRnrnvWA4YZEY9wYEVGCiVZVQ1fZ0Ox4PJuUJT0+Z7FKQ3vAVI75ymddknYEV0zPHKDpw==",
)


@functools.cache
def module_digest() -> Digest:
    """Of the module that is compiled: what it is made of."""
    total = hashlib.sha256(f"{_FORMAT} {RUBY.integrity}".encode())
    total.update(GRAFT.read_bytes())
    return Digest(total.hexdigest())


@functools.cache
def runtime_digest() -> Digest:
    """What a build depends on: the module and the guest's files."""
    total = hashlib.sha256(f"{_FORMAT} {module_digest()}".encode())
    for path in sorted(GUEST_FILES.rglob("*.rb")):
        name = path.relative_to(GUEST_FILES).as_posix()
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Digest(total.hexdigest())


@functools.cache
def image_digest() -> Digest:
    """What a memory image belongs to: the runtime and the engine that runs it."""
    parts = f"{runtime_digest()} {fingerprint(EngineSettings())}"
    return Digest(hashlib.sha256(parts.encode()).hexdigest())


def folder(cache_dir: Path) -> Path:
    """Where the prepared folder is, or would be."""
    return cache_dir / "runtimes" / f"ruby-{runtime_digest()[:32]}"
