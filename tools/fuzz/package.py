"""The package unpacker: archives with odd entries, and archives that were damaged."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from isopod.errors import IsopodError
from isopod.package import PackageLimits
from isopod.package.unpack import unpack
from tools.fuzz.target import INTERESTING, Finding, Target, mutate

_LIMITS = PackageLimits(max_files=40, max_mib=1)
_CANARY = b"nobody may write here"
_NAMES = [
    *("a", "app.py", "a/b", "a/b/c", "a/", "./a", "a/.", "a//b", "/a", "/etc/passwd", ".."),
    *("../canary", "a/../../canary", "a/../b", "...", ". .", "", ".", "/", "\\..\\x", "a\\b"),
    *("x" * 255, "x" * 256, "d/" * 200 + "x", "é", "\udcff", "a\nb", "a\0b", "\u202e", "con", "A"),
    *("/proc/self/fd/1", "~/x", "a" * 101, "b/" + "c" * 150, "link", "link/x", "isopod.toml"),
]
_TYPES = [tarfile.REGTYPE] * 8 + [
    *(tarfile.DIRTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE),
    *(tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.AREGTYPE, b"V", b"x", b"g"),
    *(tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"Z", b"\0"),
]
_PAX = ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.major", "GNU.sparse.minor",
        "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.map", "GNU.sparse.numblocks",
        "GNU.sparse.size", "hdrcharset", "x"]  # fmt: skip
_VALUES = [*_NAMES, *(str(number) for number in INTERESTING), "-1", "1.5", "nan", "0,5,10,5", "1,0"]
_WORDS = [b"ustar\x0000", b"ustar  \0", b"../../canary\0", b"\x80" + b"\xff" * 11, b"777777777777",
          b"\0" * 512, b"\x28\xb5\x2f\xfd", b"30 mtime=1\n", b"9999999999 path=x\n"]  # fmt: skip


def _entry(tar: tarfile.TarFile, chance: random.Random) -> None:
    entry = tarfile.TarInfo(chance.choice(_NAMES))
    entry.type = chance.choice(_TYPES)
    entry.mode = chance.choice((0o644, 0o755, 0, 0o7777, 0o4755))
    entry.linkname = chance.choice(_NAMES)
    data = chance.randbytes(chance.choice((0, 1, 10, 511, 512, 513, 3000)))
    if chance.random() < 0.03:
        data = bytes(chance.choice((1 << 20, (1 << 20) + 1, 3 << 20)))
    entry.size = len(data) if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE, b"x", b"g") else 0
    if chance.random() < 0.1:
        entry.size = chance.choice((0, 1, 511, 1 << 20, 1 << 33))
    if chance.random() < 0.3:
        keys = chance.sample(_PAX, chance.randint(1, 4))
        entry.pax_headers = {key: chance.choice(_VALUES) for key in keys}
    tar.addfile(entry, io.BytesIO(data + bytes(max(0, min(entry.size, 1 << 20) - len(data)))))


def _generate(chance: random.Random) -> bytes:
    raw = io.BytesIO()
    kind = chance.choice((tarfile.PAX_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    # The writer refuses some of what a reader may meet: then the archive ends there.
    with (
        contextlib.suppress(ValueError, OSError, OverflowError),
        tarfile.open(fileobj=raw, mode="w", format=kind, errors="surrogateescape") as tar,
    ):
        for _ in range(chance.choice((1, 2, 3, 5, 10, 60))):
            with contextlib.suppress(ValueError, UnicodeError, OSError):
                _entry(tar, chance)
    data = raw.getvalue()
    if chance.random() < 0.5:
        data = mutate(chance, data, _WORDS)
    options = zstandard.ZstdCompressor(
        level=1, write_checksum=chance.random() < 0.5, write_content_size=chance.random() < 0.5
    )
    packed = options.compress(data)
    if chance.random() < 0.3:
        packed = mutate(chance, packed, _WORDS, most=3)
    return packed


@contextlib.contextmanager
def _open(work: Path) -> Iterator[Callable[[bytes], None]]:
    outside, dest = work / "outside", work / "outside" / "dest"
    outside.mkdir()
    canary = outside / "canary"
    canary.write_bytes(_CANARY)

    def run(data: bytes) -> None:
        source = work / "package"
        source.write_bytes(data)
        try:
            count = unpack(source, dest, limits=_LIMITS)
        except IsopodError:
            count = None
        try:
            _check(outside, canary, dest, count)
        finally:
            shutil.rmtree(dest, ignore_errors=True)

    yield run


def _check(outside: Path, canary: Path, dest: Path, count: int | None) -> None:
    if canary.read_bytes() != _CANARY or {one.name for one in outside.iterdir()} - {
        "canary",
        "dest",
    }:
        raise Finding("something was written outside of the folder")
    files = total = 0
    for folder, folders, names in os.walk(dest):
        for name in [*folders, *names]:
            one = Path(folder, name).lstat()
            if not stat.S_ISREG(one.st_mode) and not stat.S_ISDIR(one.st_mode):
                raise Finding(f"{name!r} is neither a file nor a folder")
            if one.st_mode & 0o7022:
                raise Finding(f"{name!r} has mode {one.st_mode:o}")
        files += len(names)
        total += sum(Path(folder, name).stat().st_size for name in names)
    if total > _LIMITS.max_bytes or files > _LIMITS.max_files:
        raise Finding(f"{files} files of {total} bytes were unpacked")
    if count is not None and count != files:
        raise Finding(f"{files} files were unpacked, {count} were told")


TARGET = Target("package", _generate, _open, longest_s=30)
