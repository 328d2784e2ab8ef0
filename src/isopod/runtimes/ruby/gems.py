"""An app's gems from its lock file: fetched, verified, unpacked. No code of theirs runs.

A file comes from the app's own vendor/cache, else from the registry: the one that Bundler knows,
or the mirror that the node's operator names. Its sha256 is the lock file's; where that has none,
what the registry's index says. Gems that must be compiled are refused, but for those that the
runtime has itself; servers of a process of their own are left out.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isopod.errors import DependencyFailed, DependencyInvalid, DependencyNativeOnly
from isopod.model.ids import Digest
from isopod.runtimes.installed import Installed
from isopod.runtimes.ruby import gem_file, lockfile
from isopod.runtimes.ruby.lockfile import Gem, Lock

LOAD_PATH, REQUIRE = "isopod/load_path", "isopod/require"  # in the site tree
REGISTRY = "https://rubygems.org"
_MAX_GEM = 64 << 20
_MAX_INDEX = 8 << 20
_MAX_LOCK = 4 << 20
_MAX_GEMS = 500
_TIMEOUT_S = 60.0
# With extensions, in the runtime: the lock file's version of them is not asked for.
_OWN = frozenset(
    """
    cgi date digest erb etc fcntl io-wait json monitor objspace openssl pathname prism psych
    rbconfig ripper stringio strscan zlib
    """.split()  # noqa: SIM905  a table reads better than twenty strings
)
# The gateway is the server.
_SERVERS = frozenset({"falcon", "iodine", "passenger", "puma", "thin", "unicorn", "webrick"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where gems come from. `mirror`: the operator's, "" for none."""

    mirror: str
    cache: Path

    @property
    def address(self) -> str:
        return (self.mirror or REGISTRY).rstrip("/")


def install(folder: Path, site: Path, source: Source) -> Installed:
    """Put the gems of the app in `folder` into the new folder `site`. Raises DependencyInvalid and
    its kin."""
    site.mkdir()
    (site / LOAD_PATH).parent.mkdir()
    if not (folder / "Gemfile.lock").is_file():
        if (folder / "Gemfile").is_file():
            raise DependencyInvalid(
                "there is a Gemfile, and no Gemfile.lock",
                hint="run `bundle lock --add-checksums`, and deploy the file with the app",
            )
        return Installed((), Digest(hashlib.sha256().hexdigest()), "No gems")
    lock = lockfile.parse(_text(folder / "Gemfile.lock"))
    gemfile = lockfile.read_gemfile(_text(folder / "Gemfile"))
    wanted = _wanted(lock, gemfile.not_to_run, source)
    files = [(gem, _file(gem, folder / "vendor" / "cache", source)) for gem in wanted]
    _refuse_native(files)
    paths, total, room = [], hashlib.sha256(), gem_file.Room()
    for gem, path in files:
        target = f"gems/{gem.name}-{gem.version}"
        gem_file.unpack(path, site / target, room)
        paths += [f"{target}/{one}" for one in gem_file.read_metadata(path).require_paths]
        total.update(f"{gem.name} {gem.version} {_sha256(path)}\n".encode())
    required = [
        word
        for name in lock.direct
        if name not in gemfile.not_to_run | _SERVERS
        for word in gemfile.required.get(name, (name,))
    ]
    for name, lines in ((LOAD_PATH, paths), (REQUIRE, required)):
        text = "".join(f"{line}\n" for line in lines)
        (site / name).write_text(text)
        total.update(text.encode() + b"\0")
    distributions = tuple((gem.name, gem.version) for gem in wanted)
    count = len(distributions)
    text = f"{count} gem{'' if count == 1 else 's'}"
    if left_out := sorted(_SERVERS & set(lock.direct)):
        text += f", without {', '.join(left_out)}: isopod is the server"
    return Installed(distributions, Digest(total.hexdigest()), text)


def _wanted(lock: Lock, not_to_run: frozenset[str], source: Source) -> list[Gem]:
    if lock.elsewhere:
        raise DependencyInvalid(
            f"Gemfile.lock has gems from a path or from git: {', '.join(sorted(lock.elsewhere))}",
            hint="publish them, or put their files into the app's folder",
        )
    known = {REGISTRY, source.address}
    if others := sorted(one for one in lock.remotes if one.rstrip("/") not in known):
        raise DependencyInvalid(
            f"Gemfile.lock has gems from {', '.join(others)}",
            hint=f"only {REGISTRY} is asked, or the mirror that the node's operator names",
        )
    found = [gem for gem in lock.reachable(not_to_run | _SERVERS) if gem.name not in _OWN]
    if len(found) > _MAX_GEMS:
        raise DependencyInvalid(f"the app needs {len(found)} gems, of at most {_MAX_GEMS}")
    return found


def _refuse_native(files: Sequence[tuple[Gem, Path]]) -> None:
    native = []
    for gem, path in files:
        metadata = gem_file.read_metadata(path)
        if gem.platform or metadata.extensions or metadata.platform not in ("", "ruby"):
            native.append(gem.name)
    if native:
        raise DependencyNativeOnly(
            f"these gems have native extensions, which do not run here: {', '.join(native)}",
            hint="use gems in Ruby alone; one for development belongs into `group :development`",
            details={"gems": native},
        )


def _file(gem: Gem, vendored: Path, source: Source) -> Path:
    """The gem's file, verified."""
    own = vendored / gem.file_name
    if own.is_file() and not own.is_symlink():
        if gem.sha256 and _sha256(own) != gem.sha256:
            raise _wrong(gem, "the file in vendor/cache")
        return own
    if gem.platform:
        # Nothing of it would be used: it says itself that it is compiled.
        raise DependencyNativeOnly(
            f"gem {gem.name!r} is locked for {gem.platform} alone, as native code",
            hint="add the platform `ruby`: `bundle lock --add-platform ruby`",
            details={"gems": [gem.name]},
        )
    if not gem.sha256:
        gem = replace(gem, sha256=_of_index(gem, source))
    kept = source.cache / f"{gem.sha256[:32]}-{gem.file_name}"
    if kept.is_file() and _sha256(kept) == gem.sha256:
        return kept
    data = _get(f"{source.address}/gems/{gem.file_name}", _MAX_GEM)
    if hashlib.sha256(data).hexdigest() != gem.sha256:
        raise _wrong(gem, "what the registry gave")
    source.cache.mkdir(parents=True, exist_ok=True)
    temporary = source.cache / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.write_bytes(data)
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)
    return kept


def _of_index(gem: Gem, source: Source) -> str:
    """From the compact index: a line "version needs|checksum:sha256,..." for each version."""
    lines = _get(f"{source.address}/info/{gem.name}", _MAX_INDEX).decode("utf-8", "replace")
    for line in lines.splitlines():
        version, _, rest = line.partition(" ")
        _, _, sha256 = rest.partition("|checksum:")
        if version == gem.version and sha256:
            return sha256[:64]
    raise DependencyInvalid(
        f"the registry knows no {gem.name} {gem.version} with a checksum",
        hint="run `bundle lock --add-checksums`, and deploy the file with the app",
    )


def _get(address: str, limit: int) -> bytes:
    """Raises DependencyFailed."""
    request = urllib.request.Request(address, headers={"user-agent": "isopod"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            if urllib.parse.urlsplit(answer.url).scheme not in ("https", _scheme(address)):
                raise DependencyFailed(f"{address} leads to another kind of address")
            data = bytes(answer.read(limit + 1))
    except urllib.error.HTTPError as error:
        raise DependencyFailed(f"the gem registry answered {error.code} for {address}") from error
    except (OSError, ValueError) as error:
        raise DependencyFailed(
            f"the gem registry cannot be asked for {address}: {error}",
            hint="vendor the gems with `bundle cache`, and deploy vendor/cache with the app",
        ) from error
    if len(data) > limit:
        raise DependencyFailed(f"{address} is larger than {limit >> 20} MiB")
    return data


def _scheme(address: str) -> str:
    return urllib.parse.urlsplit(address).scheme


def _wrong(gem: Gem, what: str) -> DependencyInvalid:
    return DependencyInvalid(
        f"{what} for {gem.name} {gem.version} does not have the checksum that is locked",
        hint="make the lock file again with `bundle lock --add-checksums`, if you trust the gem",
    )


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        data = file.read(_MAX_LOCK + 1)
    if len(data) > _MAX_LOCK:
        raise DependencyInvalid(f"{path.name} is larger than {_MAX_LOCK >> 20} MiB")
    return data.decode("utf-8", "replace")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
