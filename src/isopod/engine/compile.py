"""`python -m isopod.engine.compile MODULE OUT`: ahead-of-time compilation in its own process."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import wasmtime

from isopod.engine.config import EngineSettings, make_engine
from isopod.sandbox import kernel

# CPython has 95 MiB. Data sections are copied: 2 GiB of zeros in a sparse file would take 4 GiB of
# memory and as much of the disk.
_MAX_MODULE_BYTES = 256 << 20


def main(module: str, out: str) -> int:
    # Ends with whoever asked for it, however that one ends.
    with contextlib.suppress(OSError):
        kernel.end_with_parent()
    # Compilation uses every core for a minute: let those who serve go first.
    with contextlib.suppress(OSError):
        os.nice(5)
    try:
        size = Path(module).stat().st_size
        if size > _MAX_MODULE_BYTES:
            print(
                f"the module has {size:,} bytes, of at most {_MAX_MODULE_BYTES:,}", file=sys.stderr
            )
            return 1
        compiled = wasmtime.Module.from_file(make_engine(EngineSettings()), module).serialize()
        Path(out).write_bytes(compiled)
    except (wasmtime.WasmtimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
