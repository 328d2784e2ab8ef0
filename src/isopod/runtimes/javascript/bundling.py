"""An app and its npm packages as one module. Nothing of either runs for that."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from isopod.errors import (
    AppSyntaxError,
    DependencyNativeOnly,
    DependencyNotFound,
    IsopodError,
    PackageTooLarge,
)
from isopod.model.ids import Digest
from isopod.runtimes.installed import Installed
from isopod.runtimes.javascript import artifacts, npm, outside
from isopod.runtimes.javascript.esbuild import Bundled, Complaint, bundle
from isopod.runtimes.javascript.positions import POSITIONS, names_of, table
from isopod.runtimes.javascript.runtime import BUNDLE

_MAX_BUNDLE = 10 << 20
_UNRESOLVED = re.compile(r'Could not resolve "([^"]+)"')
# Those of Node 24 (nodejs.org/api), beside what is written with "node:".
_NODE = frozenset(
    """
    assert async_hooks buffer child_process cluster console constants crypto dgram
    diagnostics_channel dns domain events fs http http2 https inspector module net os path
    perf_hooks process punycode querystring readline repl sqlite stream string_decoder sys test
    timers tls trace_events tty url util v8 vm wasi worker_threads zlib
    """.split()  # noqa: SIM905  a table reads better than forty strings
)


def install(folder: Path, entrypoint: str, site: Path, *, cache_dir: Path) -> Installed:
    """Put the app's bundle into the new folder `site`. Raises AppSyntaxError, PackageTooLarge,
    and DependencyInvalid and its kin."""
    site.mkdir()
    distributions: tuple[tuple[str, str], ...] = ()
    with TemporaryDirectory(prefix="isopod-npm-") as scratch:
        work = Path(scratch)
        if npm.dependencies(folder):
            distributions = npm.install(folder, work, cache_dir / "npm")
        done = bundle(
            artifacts.folder(cache_dir) / artifacts.ESBUILD,
            entrypoint,
            site / BUNDLE,
            *("--format=esm", "--sourcemap=external", "--sources-content=false"),
            *("--keep-names", '--define:process.env.NODE_ENV="production"'),
            f"--metafile={work / 'inputs.json'}",
            folder=folder,
            environment={"NODE_PATH": str(work / "node_modules")},
        )
        outside.refuse(done, work / "inputs.json", folder=folder, own=(folder, work))
    if done.complaints:
        raise _explain(done)
    size = (site / BUNDLE).stat().st_size
    if size > _MAX_BUNDLE:
        raise PackageTooLarge(
            f"the app's bundle has {size:,} bytes, of at most {_MAX_BUNDLE:,}",
            hint="import less, or fetch large data when it is needed",
        )
    source_map = site / f"{BUNDLE}.map"
    said = source_map.read_bytes()
    # A package's own map may be anything, and esbuild follows it.
    with contextlib.suppress(ValueError):
        names = names_of(said, beside=site, folder=folder)
        (site / POSITIONS).write_bytes(table(said, names))
    source_map.unlink()
    total = hashlib.sha256()
    for path in sorted(site.iterdir()):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    count = len(distributions)
    packages = f"{count} npm package{'' if count == 1 else 's'}, " if count else ""
    text = f"{packages}{size / 1024:,.0f} KiB bundled"
    return Installed(distributions, Digest(total.hexdigest()), text)


def _explain(done: Bundled) -> IsopodError:
    nodes: dict[str, str] = {}
    missing: dict[str, str] = {}
    for one in done.complaints:
        unresolved = _UNRESOLVED.search(one.text)
        if unresolved:
            name = unresolved[1]
            bare = name.removeprefix("node:").partition("/")[0]
            is_node = name.startswith("node:") or bare in _NODE
            (nodes if is_node else missing).setdefault(name, _place(one))
    details = {"said": done.said[-8000:]}
    if nodes:
        return DependencyNativeOnly(
            f"the app needs modules of Node's own, which are not here: {_listed(nodes)}",
            hint="use the Web platform's functions, or a package that has a build for workers",
            details={**details, "modules": sorted(nodes)},
        )
    if missing:
        return DependencyNotFound(
            f"what the app imports is not there: {_listed(missing)}",
            hint="add it to package.json with `npm install`, and deploy package-lock.json too",
            details={**details, "modules": sorted(missing)},
        )
    first = done.complaints[0]
    more = f" (and {len(done.complaints) - 1} more)" if len(done.complaints) > 1 else ""
    where = f"{_place(first)}: " if first.file else ""
    return AppSyntaxError(
        f"{where}{first.text}{more}",
        hint="",
        details={**details, "file": first.file, "line": first.line, "traceback": done.said[-8000:]},
    )


def _place(one: Complaint) -> str:
    return f"{one.file}:{one.line}" if one.file else ""


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name!r}" + (f" ({at})" if at else "") for name, at in found.items())
