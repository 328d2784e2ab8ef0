"""Compiled modules, cached by content and shared by every node and checkout of this machine.

An entry is a folder `<key>/` with `module.cwasm` and `entry.json` (its sha256 and size). The key
covers the module's digest and the engine's fingerprint. An entry is built beside its place and
renamed into it, so that it is whole or absent; a file lock makes two processes that want the same
module compile it once; `ensure` checks the digest, and rebuilds an entry that was damaged.
A tenant's `.cwasm` never comes here: deserialising one runs whatever machine code it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.config import EngineSettings, fingerprint
from isopod.errors import DiskFull, RuntimePrepareFailed, disk_full_is_clear
from isopod.owned_file import sync

COMPILE_TIMEOUT_S = 1200.0
# (fraction 0-1, what is being done)
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ModuleCache:
    """`root` is created when an entry is first written."""

    root: Path
    settings: EngineSettings

    def key(self, module_digest: str) -> str:
        text = f"{module_digest}:{fingerprint(self.settings)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def entry(self, module_digest: str) -> Path | None:
        """The compiled module, if it is there; its bytes are not checked (see `ensure`)."""
        path = self.root / self.key(module_digest) / "module.cwasm"
        return path if path.is_file() else None

    def ensure(self, module: Path, module_digest: str, progress: Progress) -> Path:
        """The compiled module, verified; compiled first if it is absent or damaged.

        Takes 0.2 s for an entry of 290 MB, a minute and 2.5 GB to compile CPython. Raises
        RuntimePrepareFailed or DiskFull; a failed compilation leaves nothing behind.
        """
        with (
            _writing(self.root),
            _locked(self.root, f"{self.key(module_digest)}.lock", progress),
        ):
            folder = self.root / self.key(module_digest)
            if _intact(folder):
                return folder / "module.cwasm"
            if folder.exists():
                progress(0.0, "the cached module is damaged; compiling it again")
                _discard(folder)
            self._build(module, folder, progress)
            return folder / "module.cwasm"

    def _build(self, module: Path, folder: Path, progress: Progress) -> None:
        prefix = f".new-{folder.name[:16]}-"
        for left in self.root.glob(f"{prefix}*"):  # by a process that was killed; we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))
        try:
            compiled = temporary / "module.cwasm"
            _compile(module, compiled, progress)
            entry = {"sha256": _sha256(compiled), "size": compiled.stat().st_size}
            (temporary / "entry.json").write_text(json.dumps(entry))
            sync(compiled)
            sync(temporary / "entry.json")
            temporary.rename(folder)
            sync(self.root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _compile(module: Path, out: Path, progress: Progress) -> None:
    # In a process of its own: it takes gigabytes that this one would keep.
    command = [sys.executable, "-m", "isopod.engine.compile", str(module), str(out)]
    started = time.monotonic()
    expected_s = max(1.0, module.stat().st_size / 2.2e6)  # CPython: 99 MB in about 45 s
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None:
                elapsed = time.monotonic() - started
                if elapsed > COMPILE_TIMEOUT_S:
                    raise RuntimePrepareFailed(
                        f"compiling {module.name!r} took longer than {COMPILE_TIMEOUT_S:.0f} s"
                    )
                # Never 1.0 before it is done, however slow the machine is.
                progress(
                    min(elapsed / expected_s, 1.0) * 0.98,
                    f"compiling {module.name} ({elapsed:.0f} s)",
                )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            if process.poll() is None:
                process.kill()
        said = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
    if process.returncode != 0:
        if "No space left" in said:
            raise DiskFull(f"the disk filled up while compiling {module.name!r}")
        lines = said.strip().splitlines()
        raise RuntimePrepareFailed(
            f"compiling {module.name!r} failed: {lines[-1] if lines else process.returncode}",
            hint="it needs about 2.5 GB of memory" if process.returncode < 0 else "",
            details={"said": "\n".join(lines[-10:])},
        )
    progress(1.0, f"compiled {module.name}")


def _intact(folder: Path) -> bool:
    try:
        entry = json.loads((folder / "entry.json").read_text())
        compiled = folder / "module.cwasm"
        return bool(
            compiled.stat().st_size == entry["size"] and _sha256(compiled) == entry["sha256"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _discard(folder: Path) -> None:
    # Renamed first: a process that maps the file keeps its inode, a new one never finds it.
    away = folder.with_name(f".damaged-{os.getpid()}-{folder.name[:16]}")
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """A full disk is DiskFull; any other trouble with the folder names it."""
    try:
        with disk_full_is_clear(str(root)):
            yield
    except OSError as error:
        raise RuntimePrepareFailed(
            f"cannot keep compiled modules in {str(root)!r}: {error.strerror or error}",
            hint="ISOPOD_CACHE_DIR chooses another folder",
        ) from error


@contextlib.contextmanager
def _locked(root: Path, name: str, progress: Progress) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(0.0, "waiting for another process that prepares the same module")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file releases the lock


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
