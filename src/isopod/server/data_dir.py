"""The node's folder: made for its owner alone, and held by one node at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.errors import DataDirUnusable, NodeAlreadyRunning, disk_full_is_clear
from isopod.owned_file import write_owned
from isopod.settings import NodeSettings

_OURS = frozenset({"blobs", "lock", "state.db", "token", "trees"})
# Where routes.db was before it had a folder; it is written again from the state.
_OLD_ROUTES = ("routes.db", "routes.db-shm", "routes.db-wal")


def prepare_data_dir(settings: NodeSettings) -> None:
    """Make the folder (0700) and those under it.

    DataDirUnusable when it cannot be written, or holds files of something else.
    """
    path = settings.data_dir
    try:
        with disk_full_is_clear(str(path)):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path)
            names = {entry.name for entry in path.iterdir()}
            if names and not names & _OURS:
                raise DataDirUnusable(
                    f"{str(path)!r} is not empty and is not an isopod data directory",
                    hint="choose an empty or a new folder with --data-dir",
                )
            if path.stat().st_mode & 0o077:
                path.chmod(0o700)
            for folder in (
                settings.blobs_dir,
                settings.trees_dir,
                settings.images_dir,
                settings.machine_code_dir,
                settings.routes_path.parent,
                settings.logs_dir,
                settings.cordons_dir,
                settings.run_dir,
                settings.run_dir / "tmp",
                settings.uploads_dir,
                settings.volumes_dir,
                settings.apart_volumes_dir,
            ):
                folder.mkdir(mode=0o700, exist_ok=True)
            settings.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            for name in _OLD_ROUTES:
                (path / name).unlink(missing_ok=True)
    except OSError as bad:
        raise DataDirUnusable(
            f"cannot use {bad.filename or str(path)!r}: {(bad.strerror or str(bad)).lower()}",
            hint="choose a folder this user may write with --data-dir",
        ) from bad


def _check_owner(path: Path) -> None:
    """Root could write another account's folder; its workers, without capabilities, could not."""
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise DataDirUnusable(
            f"{str(path)!r} belongs to user id {owner}, and this process is user id {os.geteuid()}",
            hint="run the node as the folder's owner, or choose another folder with --data-dir",
        )


def sweep(settings: NodeSettings) -> None:
    """Remove what processes that died were writing. Only while none of ours runs: a worker
    may be unpacking a tree."""
    blobs = BlobStore(settings.blobs_dir)
    blobs.sweep()
    TreeCache(settings.trees_dir, blobs).sweep()
    ImageCache(settings.images_dir, blobs, limit_bytes=settings.image_cache_mib << 20).sweep()


@contextmanager
def data_dir_lock(settings: NodeSettings) -> Iterator[None]:
    """Hold the folder; the kernel lets go when this process ends, however it ends."""
    path = settings.data_dir / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode("ascii", "replace").strip()
            raise NodeAlreadyRunning(
                f"a node runs on {str(settings.data_dir)!r} already, with process id {pid}",
                hint="`isopod status` shows it; choose another folder with --data-dir",
                details={"pid": int(pid) if pid.isdigit() else 0},
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


def ensure_token(path: Path) -> str:
    """The bearer token, made at first start; its file is for the owner alone."""
    try:
        token = path.read_text().strip()
        if token:
            path.chmod(0o600)
            return token
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    write_owned(path, f"{token}\n".encode(), durable=True)
    return token
