"""What a deploy makes of a site's folder: its files, compressed variants of them, and the index.

The folder is replaced by files/PATH, br/PATH, zstd/PATH, gzip/PATH and index.json.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import brotli
import orjson
import zstandard

from isopod.errors import AppNotDetected, ManifestInvalid, PackageUnsafe
from isopod.manifest import FILE_NAME as MANIFEST
from isopod.runtimes.static import header_rules, media, redirects
from isopod.runtimes.static.index import FILES, INDEX, Form, Index, SiteFile

_OWN_FILES = frozenset({header_rules.FILE_NAME, redirects.FILE_NAME, MANIFEST})
_WELL_KNOWN = ".well-known"
_MIN_BYTES = 512  # a smaller answer is one packet either way
_MAX_COMPRESSED = 32 << 20  # of a larger file's variants nobody would wait for the making
_WORTH = 0.9  # a variant that saves less than a tenth is left out
# The best settings take 2 s for a MiB; a site of more text than this gets quick ones.
_BEST_UP_TO = 4 << 20
_MAX_RULES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Effort:
    brotli: int
    zstd: int
    gzip: int


_BEST, _QUICK = _Effort(11, 19, 9), _Effort(5, 9, 6)


@dataclass(frozen=True, slots=True)
class Site:
    """What was made, for people."""

    index: Index
    left_out: int

    def text(self) -> str:
        files = self.index.files.values()
        whole = sum(one.plain.size for one in files)
        parts = [f"{len(files):,} file{'' if len(files) == 1 else 's'}, {_size(whole)}"]
        small = [one for one in files if one.encodings]
        if small:
            before = sum(one.plain.size for one in small)
            after = sum(min(form.size for form in one.forms) for one in small)
            parts.append(f"{len(small):,} compressed from {_size(before)} to {_size(after)}")
        if self.left_out:
            parts.append(f"{self.left_out:,} not served")
        return "; ".join(parts)


def build(folder: Path, root: str, *, spa: bool, now: int) -> Site:
    """Raises PackageUnsafe, ManifestInvalid (`_redirects`, `_headers`), AppNotDetected."""
    source = folder / root
    rules = tuple(redirects.parse(read_rules(source / redirects.FILE_NAME)))
    headers = tuple(header_rules.parse(read_rules(source / header_rules.FILE_NAME)))
    paths, left_out = served_files(source)
    if not paths:
        raise AppNotDetected(f"the site's folder {root!r} holds no file that can be served")
    made = folder.with_name(f"{folder.name}-made")
    files = make_files({path: source / path for path in paths}, made, take=Path.rename)
    index = Index(files=files, built_at=now, spa=spa, redirects=rules, headers=headers)
    write_index(index, made)
    shutil.rmtree(folder)
    made.rename(folder)
    return Site(index, left_out)


def served_files(source: Path) -> tuple[list[str], int]:
    """The paths of what is served of a folder, sorted, and how many others there are. Raises
    PackageUnsafe."""
    found = list(_walk(source))
    served = sorted(path for path in found if is_served(path))
    return served, len(found) - len(served)


def make_files(
    sources: Mapping[str, Path], made: Path, *, take: Callable[[Path, Path], object]
) -> dict[str, SiteFile]:
    """The files at their paths, with their variants, in the new folder `made`. `take` moves or
    copies one."""
    made.mkdir()
    text = sum(_compressible_bytes(source, path) for path, source in sources.items())
    effort = _BEST if text <= _BEST_UP_TO else _QUICK
    found = {}
    for path, source in sorted(sources.items()):
        target = made / FILES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        take(source, target)
        found[path] = _file(path, target, made, effort)
    return found


def write_index(index: Index, made: Path) -> None:
    (made / INDEX).write_bytes(orjson.dumps(index.to_json()))


def is_served(path: str) -> bool:
    """Not what begins with a dot (but .well-known), and not the files that we read ourselves."""
    first, *rest = path.split("/")
    hidden = any(part.startswith(".") for part in rest)
    return (
        not hidden
        and (first == _WELL_KNOWN or not first.startswith("."))
        and (path not in _OWN_FILES)
    )


def _walk(source: Path) -> Iterator[str]:
    for base, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = Path(base, name)
            relative = path.relative_to(source).as_posix()
            if path.is_symlink():
                raise PackageUnsafe(
                    f"the site holds {relative!r}, a symbolic link", hint="copy what it points to"
                )
            if "\\" in name:
                raise PackageUnsafe(
                    f"the file name {relative!r} holds a backslash, which browsers take for '/'",
                    hint="rename it",
                )
        yield from (Path(base, name).relative_to(source).as_posix() for name in names)


def _compressible_bytes(file: Path, path: str) -> int:
    return file.stat().st_size if media.is_compressible(path) else 0


def _file(path: str, target: Path, made: Path, effort: _Effort) -> SiteFile:
    data_size = target.stat().st_size
    with target.open("rb") as file:
        forms = [Form("", data_size, _etag(hashlib.file_digest(file, "sha256").hexdigest()))]
    if media.is_compressible(path) and _MIN_BYTES <= data_size <= _MAX_COMPRESSED:
        data = target.read_bytes()
        for encoding, compress in _encoders(effort).items():
            small = compress(data)
            if len(small) <= data_size * _WORTH:
                variant = made / encoding / path
                variant.parent.mkdir(parents=True, exist_ok=True)
                variant.write_bytes(small)
                etag = _etag(hashlib.sha256(small).hexdigest())
                forms.append(Form(encoding, len(small), etag))
    return SiteFile(path, media.content_type(path), media.is_hashed(path), tuple(forms))


def _encoders(effort: _Effort) -> dict[str, Callable[[bytes], bytes]]:
    """Ours first: the smallest, as a rule. Their names are `index.ENCODINGS`."""
    return {
        "br": lambda data: bytes(brotli.compress(data, quality=effort.brotli)),
        "zstd": lambda data: zstandard.ZstdCompressor(level=effort.zstd).compress(data),
        "gzip": lambda data: gzip.compress(data, effort.gzip, mtime=0),
    }


def _etag(digest: str) -> str:
    return f'"{digest[:32]}"'


def read_rules(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RULES_BYTES + 1)
    except FileNotFoundError:
        return ""
    except IsADirectoryError as error:
        raise ManifestInvalid(f"{path.name} is a folder") from error
    if len(data) > _MAX_RULES_BYTES:
        raise ManifestInvalid(f"{path.name} is larger than {_MAX_RULES_BYTES >> 10} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ManifestInvalid(
            f"{path.name}, line {line}: is not UTF-8", details={"file": path.name, "line": line}
        ) from error


def _size(size: int) -> str:
    return f"{size / 1024:,.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):,.1f} MiB"
