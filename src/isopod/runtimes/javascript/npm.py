"""npm, as a program: an app's packages from its lock file; no script of theirs runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from isopod.errors import DependencyFailed, DependencyInvalid, DiskFull
from isopod.runtimes.javascript.detect import package_json
from isopod.runtimes.program import os_environment, run_program
from isopod.settings import npm_environment

TIMEOUT_S = 300.0
_LOCK = "package-lock.json"
_OTHER_LOCKS = ("yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb")
_MAX_LOCK = 16 << 20
_NETWORK = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|network", re.IGNORECASE
)


def dependencies(folder: Path) -> list[str]:
    """The names that package.json says are needed to run."""
    found = package_json(folder).get("dependencies")
    return sorted(found) if isinstance(found, dict) else []


def install(folder: Path, target: Path, cache: Path) -> tuple[tuple[str, str], ...]:
    """Install what the lock file in `folder` says into `target`/node_modules; (name, version) of
    each, sorted. Raises DependencyInvalid, DependencyFailed or DiskFull."""
    lock = _lock(folder)
    npm = shutil.which("npm", path=os_environment()["PATH"])
    if npm is None:
        raise DependencyFailed(
            "the app has npm packages, and npm is not on this node",
            hint="its operator installs Node.js with npm (on Debian: apt install nodejs npm)",
        )
    for name in ("package.json", _LOCK):
        shutil.copyfile(folder / name, target / name)
    command = [
        *(npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-progress"),
        *("--no-update-notifier", "--loglevel=error", f"--cache={cache}"),
    ]
    environment = {**os_environment(), **npm_environment(), "HOME": str(target)}
    done = run_program(
        command, what="npm", folder=target, environment=environment, deadline_s=TIMEOUT_S
    )
    if done.returncode:
        raise _failed(done.stderr)
    return _installed(lock)


def _lock(folder: Path) -> dict[str, Any]:
    path = folder / _LOCK
    if not path.is_file():
        other = next((name for name in _OTHER_LOCKS if (folder / name).is_file()), "")
        also = f" ({other} is not read)" if other else ""
        raise DependencyInvalid(
            f"package.json lists dependencies, and there is no {_LOCK}{also}",
            hint="run `npm install --package-lock-only`, and deploy the file with the app",
        )
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_MAX_LOCK))
        if not isinstance(body["packages"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DependencyInvalid(
            f"{_LOCK} is not a lock file of npm 7 or newer", hint="make it again with npm install"
        ) from error
    return dict(body)


def _installed(lock: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    found = set()
    for path, entry in lock["packages"].items():
        _, _, name = str(path).rpartition("node_modules/")
        if name and isinstance(entry, dict) and not entry.get("dev"):
            found.add((name, str(entry.get("version", ""))))
    return tuple(sorted(found))


def _failed(said: str) -> Exception:
    lines = [
        re.sub(r"^npm (?:error|ERR!) ?", "", line)
        for line in re.sub(r"//[^/@\s]+@", "//***@", said).splitlines()
        if not line.startswith("npm warn") and "A complete log" not in line
    ]
    text = "\n".join(line for line in lines if line.strip())[:4000]
    first = next(
        (line for line in lines if line and not line.startswith("code ")), "no reason given"
    )
    if "ENOSPC" in said:
        return DiskFull("no space left while npm installed the app's packages")
    if _NETWORK.search(said):
        return DependencyFailed(f"npm failed: {first}", details={"said": text})
    return DependencyInvalid(
        f"npm failed: {first}",
        hint="package.json and package-lock.json must fit together: run `npm install`",
        details={"said": text},
    )
