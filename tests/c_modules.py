"""Programs in C as WebAssembly modules, compiled by zig's clang (PyPI's ziglang)."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILER = (sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi")


@functools.cache
def compiled(source: Path, *options: str) -> bytes:
    """Once per process; the compiler keeps its C library between processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.wasm")
        command = [*COMPILER, "-O1", "-s", *options, "-o", str(out), str(source)]
        subprocess.run(command, check=True)
        return out.read_bytes()
