"""Running uv: bounded in time, gone with this process, and never building or running a package.

Everything that is resolved is resolved for the guest's platform, and only wheels are taken.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uv as uv_package

from isopod.errors import DependencyFailed, DiskFull
from isopod.runtimes.program import run_program
from isopod.runtimes.python.bundled import guest_markers
from isopod.settings import package_index_environment

# uv knows no WASI; this is its nearest platform that takes no Linux, macOS or Windows wheel.
TARGET = "wasm32-pyodide2025"
_TIMEOUT_S = 240.0

# The child asks for SIGKILL at our death and then becomes uv. No `preexec_fn`: we have threads.
_BOOT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
_NETWORK = re.compile(
    r"failed to fetch|request failed|error sending request|dns error|connection (refused|reset)"
    r"|timed out|HTTP status (client|server) error|invalid peer certificate|could not connect"
    r"|tcp connect error|network connectivity is disabled|failed to (download|extract)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of uv ended. `said` is its standard error without noise."""

    ok: bool
    out: str
    said: str


class Uv:
    """`cache_dir` is isopod's; uv's own cache is a folder in it."""

    def __init__(self, cache_dir: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._cache = cache_dir / "uv"
        self._timeout_s = timeout_s
        self._uv = uv_package.find_uv_bin()

    def install(self, site: Path, requirements: Path, *options: str) -> Outcome:
        """Install into `site`; what is there already counts as installed."""
        return self._run(
            *("pip", "install", "--target", str(site), "--python-platform", TARGET),
            *("--python-version", guest_markers()["python_version"]),
            # Wheels only, whatever anybody configured: a source distribution runs code.
            *("--only-binary", ":all:", "--link-mode", "copy", "-r", str(requirements)),
            *options,
        )

    def would_install(self, site: Path, requirements: Path, *options: str) -> Outcome:
        return self.install(site, requirements, "--dry-run", *options)

    def resolve_anywhere(self, requirements: Path, output: Path, *options: str) -> Outcome:
        """Resolve for every platform at once, so that native wheels of any kind count.

        `output` may hold pins to prefer; afterwards it holds the result.
        """
        return self._run(
            *("pip", "compile", "--universal", "--no-build", "--no-header", "--no-annotate"),
            *("--python-version", guest_markers()["python_version"]),
            *("--output-file", str(output), str(requirements), *options),
        )

    def export(self, project: Path) -> Outcome:
        """The locked requirements of a folder with pyproject.toml and uv.lock, as text."""
        return self._run(
            *("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header"),
            *("--no-annotate", "--format", "requirements-txt", "--project", str(project)),
        )

    def _run(self, *args: str) -> Outcome:
        common = ("--quiet", "--no-config", "--no-python-downloads", "--no-progress")
        where = ("--cache-dir", str(self._cache), "--python", sys.executable)
        command = [
            *(sys.executable, "-I", "-S", "-c", _BOOT, str(os.getpid()), self._uv),
            *(*args, *common, *where),
        ]
        environment = {"NO_COLOR": "1", "LC_ALL": "C.UTF-8", **package_index_environment()}
        with tempfile.TemporaryDirectory(prefix="isopod-uv-") as empty:
            done = run_program(
                command,
                what="installing dependencies",
                folder=Path(empty),  # no project of anybody's around it
                environment=environment,
                deadline_s=self._timeout_s,
            )
        said = cleaned(done.stderr)
        if done.returncode and "no space left on device" in done.stderr.lower():
            raise DiskFull(f"no space left on the disk of {str(self._cache)!r}")
        # A wrong hash is the requirement's fault, not the network's.
        is_network = _NETWORK.search(done.stderr) and "hash mismatch" not in done.stderr.lower()
        if done.returncode and is_network:
            raise DependencyFailed(
                f"the package index could not be used: {said.splitlines()[-1] if said else ''}",
                details={"said": said},
            )
        return Outcome(done.returncode == 0, done.stdout, said)


def cleaned(text: str) -> str:
    """uv's words without its frame, its hints for another command line, and any password."""
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    text = re.sub(r"^hint: .*(?:\n(?!\w+:).+)*", "", text, flags=re.MULTILINE)
    lines = []
    for line in text.splitlines():
        stripped = re.sub(r"^\s*(error|cause|Caused by): ?", "", line).rstrip()
        stripped = re.sub(r"^ {9}", "", stripped)
        if stripped and not stripped.startswith(("Using CPython", "Resolved ", "warning:")):
            lines.append(stripped)
    if len(lines) > 1 and lines[0] == "No solution found when resolving dependencies":
        del lines[0]
    lines = [line.replace(", we can conclude that your requirements are unsatisfiable", "")
             for line in lines]  # fmt: skip
    if len(lines) > 30:
        lines = ["...", *lines[-30:]]
    return "\n".join(lines)
