"""A .gem file: a tar of `metadata.gz` (YAML as RubyGems writes it) and `data.tar.gz`.

Whoever published it is hostile: sizes, names and kinds of its entries are bounded, links are left
out, and nothing of it runs. Of the metadata three keys are read, in the form in which every gem has
them; one in another form is refused.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from isopod.errors import DependencyInvalid

_MAX_METADATA = 4 << 20
_MAX_UNPACKED = 64 << 20
_ITEM = re.compile(r"""- (["']?)([^"'\n]+)\1""")


@dataclass(slots=True)
class Room:
    """What all gems of an app may still unpack to: many small files can hold much that is alike."""

    bytes: int = 512 << 20
    files: int = 50_000


@dataclass(frozen=True, slots=True)
class Metadata:
    extensions: tuple[str, ...]
    require_paths: tuple[str, ...]
    platform: str


def read_metadata(path: Path) -> Metadata:
    """Raises DependencyInvalid."""
    with _opened(path) as tar:
        data = _entry(tar, path, "metadata.gz").read(_MAX_METADATA + 1)
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(_MAX_METADATA + 1)
    if len(text) > _MAX_METADATA:
        raise DependencyInvalid(f"the metadata of {path.name!r} is too large")
    lines = text.decode("utf-8", "replace").splitlines()
    platform = next((line.partition(":")[2] for line in lines if line.startswith("platform:")), "")
    return Metadata(
        extensions=_items(lines, "extensions", path.name),
        require_paths=_items(lines, "require_paths", path.name) or ("lib",),
        platform=platform.strip().strip("\"'"),
    )


def unpack(path: Path, target: Path, room: Room) -> None:
    """Its files into the new folder `target`. Raises DependencyInvalid."""
    target.mkdir(parents=True)
    left = _MAX_UNPACKED
    with (
        _opened(path) as tar,
        tarfile.open(fileobj=_entry(tar, path, "data.tar.gz"), mode="r|gz") as inner,
    ):
        for member in inner:
            name = PurePosixPath(member.name)
            size = max(0, member.size)
            left -= size
            room.bytes -= size
            room.files -= 1
            if left < 0:
                raise DependencyInvalid(f"{path.name!r} holds too much")
            if room.bytes < 0 or room.files < 0:
                raise DependencyInvalid("the gems of the app hold too much together")
            if name.is_absolute() or ".." in name.parts or "\0" in member.name:
                raise DependencyInvalid(f"{path.name!r} names a file outside of itself")
            source = inner.extractfile(member) if member.isfile() else None
            if source is not None and name.parts:
                out = target / name
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(source.read())


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The outer tar; what is wrong with it, or with one in it, is a damaged gem."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DependencyInvalid(f"{path.name!r} is no gem, or damaged: {error}") from error


def _entry(tar: tarfile.TarFile, path: Path, name: str) -> IO[bytes]:
    try:
        found = tar.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise DependencyInvalid(f"{path.name!r} is no gem: it has no {name}")
    return found


def _items(lines: list[str], key: str, name: str) -> tuple[str, ...]:
    return tuple(_of_key(lines, key, name))


def _of_key(lines: list[str], key: str, name: str) -> Iterator[str]:
    """The strings of a list at the top level, in block form."""
    at = next((at for at, line in enumerate(lines) if line.startswith(f"{key}:")), None)
    if at is None or lines[at].strip() == f"{key}: []":
        return
    if lines[at].strip() != f"{key}:":
        raise DependencyInvalid(f"the metadata of {name!r} has {key!r} in a form that is not read")
    for line in lines[at + 1 :]:
        if not line.startswith("- "):
            return
        item = _ITEM.fullmatch(line.rstrip())
        if item is None or ".." in item[2] or item[2].startswith("/"):
            raise DependencyInvalid(f"the metadata of {name!r} has {line!r} in {key!r}")
        yield item[2]
