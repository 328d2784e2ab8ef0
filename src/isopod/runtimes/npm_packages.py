"""npm packages that a runtime itself is made of, pinned by version and digest."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import RuntimePrepareFailed
from isopod.runtimes.program import os_environment, run_program
from isopod.settings import npm_environment

_NPM_TIMEOUT_S = 300.0
_MAX_UNPACKED = 64 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package. `integrity`: the sha512 of its tarball, as a lock file has it."""

    name: str
    version: str
    integrity: str


def fetch(package: Package, target: Path, only: Collection[str] = ()) -> None:
    """Put the package's files into `target`, of those named in `only` if there are any. npm finds
    where they are; nothing of them runs. Raises RuntimePrepareFailed."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimePrepareFailed(
            f"npm is needed to fetch {package.name}, and is not on this machine",
            hint="install Node.js with npm (on Debian: apt install nodejs npm)",
        )
    what = f"{package.name}@{package.version}"
    target.mkdir(parents=True)
    done = run_program(
        [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", ".", what],
        what=f"npm pack {what}",
        folder=target,
        environment={**os_environment(), **npm_environment(), "HOME": str(Path.home())},
        deadline_s=_NPM_TIMEOUT_S,
        failure=RuntimePrepareFailed,
    )
    archives = list(target.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = done.stderr.strip().splitlines()
        raise RuntimePrepareFailed(
            f"npm could not fetch {what!r}: {said[-1] if said else 'no reason given'}"
        )
    data = archives[0].read_bytes()
    if hashlib.sha512(data).digest() != base64.b64decode(package.integrity):
        raise RuntimePrepareFailed(f"{what!r} does not have the digest that it is pinned by")
    _unpack(archives[0], target, only)
    archives[0].unlink()


def _unpack(archive: Path, target: Path, only: Collection[str]) -> None:
    left = _MAX_UNPACKED
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = Path(member.name).parts[1:]
                if not member.isfile() or not parts or ".." in parts:
                    continue
                if only and "/".join(parts) not in only:
                    continue
                left -= member.size
                if left < 0:
                    raise RuntimePrepareFailed(f"{archive.name!r} holds too much")
                source = tar.extractfile(member)
                path = target.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                if source is not None:
                    path.write_bytes(source.read())
    except (tarfile.TarError, EOFError) as error:
        raise RuntimePrepareFailed(f"{archive.name!r} is damaged: {error}") from error
