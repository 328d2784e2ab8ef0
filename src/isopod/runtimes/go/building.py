"""A Go program as a reactor. Its module is built as it is, with our package beside its own
dependencies; a copy of it, since go.mod has to name that."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from isopod.errors import (
    AppSyntaxError,
    BuildFailed,
    DependencyFailed,
    DependencyInvalid,
    DiskFull,
    IsopodError,
)
from isopod.runtimes.go import toolchain
from isopod.runtimes.go.toolchain import SDK, SDK_MODULE, Toolchain
from isopod.runtimes.reactor import abi
from isopod.runtimes.reactor.detect import functions_of

_DEADLINE_S = 300.0
_QUICK_S = 60.0
_VERSION = "v0.0.0"
# Names and line tables of functions stay, for tracebacks; what only debuggers read goes. The last
# lets our package seed the runtime's random numbers again.
_LINKER = "-ldflags=-s -w -checklinkname=0"
_PLACE = re.compile(r"^(?:\./)?([^\s:]+\.go):(\d+)(?::\d+)?: (.+)$", re.MULTILINE)
_LISTENS = re.compile(r"\b(?:http\.ListenAndServe|http\.ListenAndServeTLS|net\.Listen)\(")
_NETWORK = re.compile(
    r"dial tcp|no such host|connection refused|i/o timeout|module lookup disabled|"
    r"TLS handshake|server misbehaving|network is unreachable"
)
_SOURCE_LIMIT = 1 << 20


def build(
    go: Toolchain, folder: Path, package: str, out: Path, *, warmed: Path, keep: Path | None = None
) -> tuple[tuple[str, str], ...]:
    """Build `package` of the module in `folder` into the file `out`; the modules that it needs,
    (name, version). `warmed`: a build cache with the standard library; it is copied, so that no
    build sees what another one left. `keep`: where the build's own cache goes. Raises
    AppSyntaxError, DependencyInvalid, DependencyFailed, BuildFailed or DiskFull."""
    with TemporaryDirectory(prefix="isopod-go-") as made:
        scratch = Path(made)
        source = scratch / "source"
        shutil.copytree(folder, source, symlinks=True)
        shutil.copytree(warmed, scratch / "cache")
        _add_sdk(go, source, scratch)
        options = ("-buildmode=c-shared", "-trimpath", "-buildvcs=false", _LINKER)
        done = toolchain.run(
            go, "build", *options, "-o", str(out), package,
            folder=source, scratch=scratch, deadline_s=_DEADLINE_S,
        )  # fmt: skip
        if done.returncode or not out.is_file():
            said = done.stderr or f"the compiler ended with status {done.returncode}"
            raise explain(said, source=source)
        if abi.HANDLE not in functions_of(out):
            raise _without_sdk(folder)
        if keep is not None:
            shutil.copytree(scratch / "cache", keep)
        return _modules(source)


def _add_sdk(go: Toolchain, source: Path, scratch: Path) -> None:
    """The package of this node, whatever go.mod says of it: it has to fit the node."""
    done = toolchain.run(
        go, "mod", "edit", f"-require={SDK_MODULE}@{_VERSION}", f"-replace={SDK_MODULE}={SDK}",
        folder=source, scratch=scratch, deadline_s=_QUICK_S,
    )  # fmt: skip
    if done.returncode:
        raise explain(done.stderr, source=source)
    vendored = source / "vendor" / "modules.txt"
    if not vendored.is_file():
        return
    lines = vendored.read_text(encoding="utf-8", errors="replace")
    if f"# {SDK_MODULE} " not in lines:
        here = f"# {SDK_MODULE} {_VERSION} => {SDK}\n## explicit; go 1.24\n{SDK_MODULE}\n"
        end = f"# {SDK_MODULE} => {SDK}\n"
        vendored.write_text(f"{lines.rstrip()}\n{here}{end}")
        shutil.copytree(SDK, source / "vendor" / SDK_MODULE, dirs_exist_ok=True)


def _without_sdk(folder: Path) -> IsopodError:
    hint = f'import isopod "{SDK_MODULE}" and call isopod.Serve(handler) in func main()'
    for path in sorted(folder.rglob("*.go")):
        if not path.is_file() or path.is_symlink():
            continue
        text = path.read_bytes()[:_SOURCE_LIMIT].decode("utf-8", "replace")
        if (found := _LISTENS.search(text)) is not None:
            line = text.count("\n", 0, found.start()) + 1
            return AppSyntaxError(
                f"{path.relative_to(folder)}:{line}: the program listens on a port, which nothing "
                "in WebAssembly can",
                hint=hint,
                details={"file": str(path.relative_to(folder)), "line": line},
            )
    return AppSyntaxError("the program does not serve: nothing in it calls isopod.Serve", hint=hint)


def explain(said: str, *, source: Path) -> IsopodError:
    """What the compiler, or the loader of modules, complained about. `source` is where the copy of
    the app lay, which is the node's matter."""
    said = said.replace(f"{source}/", "").replace(str(source), "the app's folder")
    details: dict[str, object] = {"traceback": said[-8000:]}
    lines = [line.strip() for line in said.splitlines() if line.strip() and line[:2] != "# "]
    first = lines[0] if lines else "no reason given"
    if first.endswith(":") and len(lines) > 1:  # as "errors parsing go.mod:"
        first = f"{first} {lines[1]}"
    if "no space left on device" in said:
        return DiskFull("no space left while the app was compiled")
    if _NETWORK.search(said):
        return DependencyFailed(
            f"a module cannot be fetched: {first}",
            hint="the node's operator sets GOPROXY; or deploy with `go mod vendor`",
            details=details,
        )
    if "signal: killed" in said or "cannot allocate memory" in said:
        return BuildFailed("the compiler was ended: it needs more memory than a build may take")
    places = list(_PLACE.finditer(said))
    imports = "no required module provides package" in said or "is not in std" in said
    if "go.mod" in first or "go.sum" in said or "updates to go" in said or imports:
        return DependencyInvalid(
            first.removeprefix("go: "),
            hint="run `go mod tidy`, and deploy go.mod and go.sum with the app",
            details=details,
        )
    if not places:
        hint = ""
        if "build constraints exclude all Go files" in said:
            hint = "it is built with GOOS=wasip1 GOARCH=wasm, and without cgo"
        return AppSyntaxError(first.removeprefix("go: "), hint=hint, details=details)
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    file, line, text = places[0].groups()
    return AppSyntaxError(
        f"{file}:{line}: {text}{more}", details={**details, "file": file, "line": int(line)}
    )


def _modules(source: Path) -> tuple[tuple[str, str], ...]:
    """As go.sum has them, which is what was checked."""
    try:
        lines = (source / "go.sum").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    words = (line.split() for line in lines)
    return tuple(
        sorted({(w[0], w[1]) for w in words if len(w) == 3 and not w[1].endswith("/go.mod")})
    )
