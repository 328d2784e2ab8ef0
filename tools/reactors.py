"""The reactors of `examples/` as modules: in C by PyPI's ziglang, in Rust by Debian's compiler.

A module is kept by what it is made of, so that who asks for it again does not wait for a compiler.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.node import ROOT

SDK = ROOT / "sdk"
_RUSTC = Path("/usr/bin/rustc")
_START = Path("/usr/lib/wasm32-wasi/crt1-reactor.o")  # Debian's WASI has none of its own
Make = Callable[[Path, Path], None]


class NoCompiler(Exception):
    """What has to be installed."""


def make_c(source: Path, out: Path) -> None:
    """As the example's Makefile says."""
    options = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-s", f"-I{SDK / 'c'}"]
    run([sys.executable, "-m", "ziglang", "cc", *options, "-o", str(out), str(source)], out.parent)


def make_rust(source: Path, out: Path) -> None:
    """Without cargo, which Debian's package does not need. Raises NoCompiler."""
    if not _RUSTC.is_file() or not _START.is_file() or not shutil.which("lld"):
        raise NoCompiler("Rust needs apt install rustc libstd-rust-dev-wasm32 lld wasi-libc")
    targets = run([str(_RUSTC), "--print", "target-list"], out.parent).split()
    target = "wasm32-wasip1" if "wasm32-wasip1" in targets else "wasm32-wasi"
    base = [str(_RUSTC), "--edition", "2021", "--target", target, "-O"]
    library = out.parent / "libisopod.rlib"
    crate = ["--crate-type", "rlib", "--crate-name", "isopod", "-o", str(library)]
    run([*base, *crate, str(SDK / "rust" / "src" / "lib.rs")], out.parent)
    linking = ["-C", "strip=symbols", "-C", "linker=lld", "-C", f"link-arg={_START}"]
    linking += ["-C", "link-arg=--export=_initialize", "--crate-type", "cdylib"]
    own = ["--extern", f"isopod={library}", "-o", str(out), str(source)]
    run([*base, *linking, *own], out.parent)


def run(command: Sequence[str], folder: Path) -> str:
    """What it printed. Raises RuntimeError with what it complained about."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with status {done.returncode}: {done.stderr}"
        )
    return done.stdout


def kept(make: Make, source: Path, cache: Path) -> Path:
    """The module that `make` makes of `source`, in the folder `cache`. Raises as that."""
    made_of = hashlib.sha256(Path(__file__).read_bytes())
    for path in (source, *sorted(one for one in SDK.rglob("*") if one.is_file())):
        made_of.update(hashlib.sha256(path.read_bytes()).digest())
    found = cache / f"{made_of.hexdigest()[:32]}.wasm"
    if not found.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            out = Path(folder, "app.wasm")
            make(source, out)
            out.rename(found)
    return found
