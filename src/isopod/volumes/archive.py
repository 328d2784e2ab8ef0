"""A volume as a tar archive, and back.

SQLite databases are copied by SQLite's own backup, so that each comes out as one whole file however
its last writer ended; what belongs to them (-wal, -shm, -journal, .lock) stays behind. One that
SQLite cannot read is copied as the bytes it has. Owners, times, and rights but the executable bit
are not kept: a guest sees none of them.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tarfile
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from isopod.errors import ArchiveInvalid, PathNotFound, VolumeTooSmall
from isopod.volumes.size import ENTRY_BYTES
from isopod.volumes.walk import FOLDER, MAX_ENTRIES, NO_LINK, Entry, open_folder, parts_of, walk

_MAGIC = b"SQLite format 3\0"
# At the end of a journal that names another file, which SQLite removes with it.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
_BESIDE = ("-wal", "-shm", "-journal", ".lock")
_CHUNK = 1 << 20
_PAGES = 2048  # of a database, between two looks at signals
# Of a database: pages that were in use and free again before they were written to any file.
_UNWRITTEN_BYTES = 64 << 20


@dataclass(slots=True)
class Copied:
    """`raw`: databases that SQLite could not read, copied as they are. `left_out`: what an archive
    cannot hold."""

    files: int = 0
    bytes: int = 0
    databases: int = 0
    raw: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def pack(root: Path, path: str, out: Path, *, work: Path) -> Copied:
    """What is at `path` below `root`, as a tar in `out`. The caller holds the volume's lease.
    `work`: an empty folder for copies of databases. PathNotFound."""
    copied = Copied()
    names = parts_of(path)
    top = os.open(root, FOLDER)
    try:
        with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
            try:
                folder = open_folder(top, names)
            except PathNotFound:
                if not names:
                    raise
                _pack_one(archive, top, names, copied, work)
                return copied
            try:
                _pack_folder(archive, folder, copied, work)
            finally:
                os.close(folder)
    finally:
        os.close(top)
    return copied


def _pack_one(
    archive: tarfile.TarFile, top: int, names: list[str], copied: Copied, work: Path
) -> None:
    folder = open_folder(top, names[:-1])
    try:
        there = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(there.st_mode):
            raise FileNotFoundError
        _pack_file(archive, Entry(names[-1], names[-1], folder, there), copied, work)
    except FileNotFoundError:
        raise PathNotFound(f"the volume has no file {'/'.join(names)[:200]!r}") from None
    finally:
        os.close(folder)


def _pack_folder(archive: tarfile.TarFile, folder: int, copied: Copied, work: Path) -> None:
    databases: set[str] = set()
    for entry in walk(folder):
        if any(entry.path.removesuffix(end) in databases for end in _BESIDE):
            continue
        if entry.is_folder:
            archive.addfile(_info(entry, tarfile.DIRTYPE))
        elif entry.is_link:
            info = _info(entry, tarfile.SYMTYPE)
            info.linkname = entry.target()
            archive.addfile(info)
        elif entry.is_file:
            if _pack_file(archive, entry, copied, work):
                databases.add(entry.path)
        elif len(copied.left_out) < 100:
            copied.left_out.append(entry.path)


def _pack_file(archive: tarfile.TarFile, entry: Entry, copied: Copied, work: Path) -> bool:
    """Whether it was a database that SQLite copied."""
    fd = entry.open()
    with os.fdopen(fd, "rb", buffering=0):
        is_database = os.pread(fd, len(_MAGIC), 0) == _MAGIC
        copy = work / "database"
        if is_database and _copy_database(entry, copy):
            with copy.open("rb") as whole:
                _add(archive, entry, whole.fileno(), copied)
            copy.unlink()
            copied.databases += 1
            return True
        if is_database and len(copied.raw) < 100:
            copied.raw.append(entry.path)
        _add(archive, entry, fd, copied)
    return False


def _add(archive: tarfile.TarFile, entry: Entry, fd: int, copied: Copied) -> None:
    info = _info(entry, tarfile.REGTYPE)
    info.size = os.fstat(fd).st_size
    with os.fdopen(os.dup(fd), "rb") as file:
        archive.addfile(info, file)
    copied.files += 1
    copied.bytes += info.size


def _copy_database(entry: Entry, copy: Path) -> bool:
    if _may_remove_another(entry):
        return False
    # By the folder's descriptor: no link on the way can lead elsewhere.
    where = quote(f"/proc/self/fd/{entry.folder}/{entry.name}")
    most = _UNWRITTEN_BYTES
    for end in ("", *_BESIDE):
        Path(f"{copy}{end}").unlink(missing_ok=True)
        with suppress(OSError):
            beside = os.stat(f"{entry.name}{end}", dir_fd=entry.folder, follow_symlinks=False)
            most += beside.st_size
    try:
        with (
            closing(sqlite3.connect(f"file:{where}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            # The file is a guest's: nothing in its schema may run a function of ours.
            source.execute("PRAGMA trusted_schema = OFF")
            source.execute("PRAGMA cell_size_check = ON")
            # A log says how many pages there are; those that nobody wrote would be copied too.
            ((pages,),) = source.execute("PRAGMA page_count")
            ((page_bytes,),) = source.execute("PRAGMA page_size")
            if pages * page_bytes > most:
                return False
            source.backup(target, pages=_PAGES)
            # A copy in WAL mode would need its files beside it to be read.
            target.execute("PRAGMA journal_mode = DELETE")
    except (sqlite3.Error, OverflowError):
        return False
    return True


def _may_remove_another(entry: Entry) -> bool:
    """Whether its journal is one of a transaction over several databases: the file that it names
    may be any, the volume's lease too."""
    try:
        fd = os.open(f"{entry.name}-journal", NO_LINK, dir_fd=entry.folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        size = os.fstat(fd).st_size
        return os.pread(fd, 8, max(0, size - 8)) == _NAMES_ANOTHER
    finally:
        os.close(fd)


def _info(entry: Entry, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.type = kind
    executable = entry.stat.st_mode & 0o100
    info.mode = 0o755 if kind == tarfile.DIRTYPE or executable else 0o644
    info.mtime = int(entry.stat.st_mtime)
    return info


def check(archive: Path, *, room_bytes: int, name: str) -> None:
    """That all of it can be unpacked, before anything is. ArchiveInvalid, VolumeTooSmall."""
    total = 0
    folders: set[str] = set()
    for count, member in enumerate(_members(archive)):
        names = parts_of(member.name)
        if count >= MAX_ENTRIES or len(folders) >= MAX_ENTRIES:
            raise ArchiveInvalid(f"there are more than {MAX_ENTRIES:,} entries in the archive")
        if not (member.isreg() or member.isdir() or member.issym()):
            raise ArchiveInvalid(
                f"{member.name[:200]!r} is no file, folder or symbolic link",
                hint="make the archive without device files, pipes and hard links",
            )
        if not names and not member.isdir():
            raise ArchiveInvalid("an entry of the archive has no name")
        _check_texts(member, names)
        # Folders on the way are made too, and every one has its place on the disk.
        for depth in range(len(names) - (not member.isdir()), 0, -1):
            path = "/".join(names[:depth])
            if path in folders:
                break
            folders.add(path)
            total += ENTRY_BYTES
        if not member.isdir():
            total += max(member.size, ENTRY_BYTES)
    if total > room_bytes:
        needs = -(-total >> 20)
        raise VolumeTooSmall(
            f"this needs {needs} MiB, and volume {name!r} has room for {room_bytes >> 20}",
            details={"size_mib": room_bytes >> 20, "needs_mib": needs},
        )


def _check_texts(member: tarfile.TarInfo, names: list[str]) -> None:
    """What the disk would refuse in the middle, and names that no guest could open."""
    link = member.linkname if member.issym() else "-"
    try:
        long = max((len(name.encode()) for name in names), default=0) > 255
        if long or not 1 <= len(link.encode()) < 4096 or "\0" in link:
            raise ArchiveInvalid(f"{member.name[:200]!r} has a name or a target that is none")
    except UnicodeEncodeError:
        raise ArchiveInvalid(f"{member.name[:200]!r} is not UTF-8") from None


def unpack(archive: Path, root: Path, path: str = "") -> Copied:
    """Into the folder at `path` below `root`, over what is there. ArchiveInvalid when a file would
    take a folder's place; PathNotFound when a link is on the way."""
    copied = Copied()
    top = os.open(root, FOLDER)
    try:
        base = open_folder(top, parts_of(path), make=True)
        try:
            with tarfile.open(archive, "r:") as file:
                named = {"/".join(parts_of(name)) for name in file.getnames()}
                for member in file:
                    _unpack_one(file, member, base, copied, named)
        finally:
            os.close(base)
    finally:
        os.close(top)
    return copied


def _unpack_one(
    file: tarfile.TarFile,
    member: tarfile.TarInfo,
    base: int,
    copied: Copied,
    named: Collection[str],
) -> None:
    """`named`: all that the archive holds."""
    names = parts_of(member.name)
    if member.isdir():
        os.close(open_folder(base, names, make=True))
        return
    folder = open_folder(base, names[:-1], make=True)
    try:
        with suppress(FileNotFoundError):
            os.unlink(names[-1], dir_fd=folder)
        if member.issym():
            os.symlink(member.linkname, names[-1], dir_fd=folder)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o700 if member.mode & 0o100 else 0o600
        data = file.extractfile(member)
        assert data is not None
        with os.fdopen(os.open(names[-1], flags, mode, dir_fd=folder), "wb") as target:
            while chunk := data.read(_CHUNK):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        _forget_former(names, folder, named)
    except (IsADirectoryError, PermissionError):
        raise ArchiveInvalid(
            f"{member.name[:200]!r} is a file in the archive and a folder in the volume"
        ) from None
    finally:
        os.close(folder)
    copied.files += 1
    copied.bytes += member.size


def _forget_former(names: list[str], folder: int, named: Collection[str]) -> None:
    """What belonged to a database that was here would be played into the new one."""
    for end in _BESIDE[:-1]:
        if f"{'/'.join(names)}{end}" not in named:
            with suppress(FileNotFoundError):
                os.unlink(names[-1] + end, dir_fd=folder)
    with suppress(OSError):
        os.rmdir(f"{names[-1]}.lock", dir_fd=folder)


def _members(archive: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(archive, "r:") as file:  # plain: what is compressed may have no end
            yield from file
    except (tarfile.TarError, EOFError, ValueError, RecursionError, MemoryError) as error:
        raise ArchiveInvalid(f"this is no tar archive, or it was cut: {error}") from None
