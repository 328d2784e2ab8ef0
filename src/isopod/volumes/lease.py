"""One writer for a volume: a lease that the kernel takes back when its holder dies.

A volume's folder holds `data` (what guests see), `lease` and `wanted`. Whoever uses the data holds
`lease` locked (flock); its content says who that is, and the epoch: the number of times that it was
taken. Workers never wait for it. A process that copies or changes the data for its owner holds
`wanted` locked first: workers then end their idle instance, and none takes the lease before it.

Locks end with the process, however that ends, so no lease is ever stale.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import PathNotFound, VolumeBusy
from isopod.volumes.walk import FOLDER, open_folder

_LOOK_S = 0.01
_MAX_LEASE_BYTES = 4096
COPIER = -1  # in the place of a worker's number


@dataclass(frozen=True, slots=True)
class VolumeFolder:
    """Where a volume is. Both names were checked: they are labels."""

    path: Path

    @staticmethod
    def of(root: Path, tenant: str, name: str) -> VolumeFolder:
        return VolumeFolder(root / tenant / name)

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def incoming(self) -> Path:
        """What is to take the place of `data`; not whole yet."""
        return self.path / "incoming"

    @property
    def ready(self) -> Path:
        """The same, whole: it takes the place of `data` whatever happens."""
        return self.path / "ready"

    @property
    def coming(self) -> Path:
        """Is there while the volume is on its way to this place (see `places`)."""
        return self.path.with_name(f".coming-{self.path.name}")

    def open(self) -> int:
        """A descriptor of the folder. Workers write below the root: no link there is followed.
        FileNotFoundError."""
        root = os.open(self.path.parent.parent, FOLDER)
        try:
            return open_folder(root, list(self.path.parts[-2:]))
        except PathNotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        finally:
            os.close(root)

    def make(self) -> None:
        """What was left by one of that name is not shown to this one's app: FileExistsError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        folder = os.open(self.path, FOLDER)
        try:
            os.mkdir("data", 0o700, dir_fd=folder)
            for name in ("lease", "wanted"):
                new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(name, new, 0o600, dir_fd=folder))
        finally:
            os.close(folder)


class Lease:
    """A volume's, held. `epoch` rises with every holder."""

    def __init__(self, fd: int, epoch: int) -> None:
        self._fd = fd
        self.epoch = epoch

    def release(self) -> None:
        """Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def try_lease(folder: VolumeFolder, *, worker: int) -> Lease | int:
    """The lease, or the number of the worker that has it, or had it last while somebody copies the
    volume or waits to; COPIER when there is none, or the volume is on its way here. Never waits.
    FileNotFoundError when the volume is gone."""
    try:
        fd = _open(folder.path / "lease", os.O_RDWR)
    except FileNotFoundError:
        if folder.coming.exists():
            return COPIER
        raise
    try:
        if worker != COPIER and is_wanted(folder):
            return said_in(fd)[0]
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last, epoch = said_in(fd)
            number = last if worker == COPIER else worker
            said = {"worker": number, "pid": os.getpid(), "epoch": epoch + 1}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(said).encode(), 0)
            settle(folder)
            held, fd = fd, -1
            return Lease(held, epoch + 1)
        return said_in(fd)[0]
    finally:
        if fd >= 0:
            os.close(fd)


def is_wanted(folder: VolumeFolder) -> bool:
    """Whether somebody who is no worker waits for it."""
    fd = _open(folder.path / "wanted", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def owned(folder: VolumeFolder, *, name: str, patience_s: float) -> Iterator[None]:
    """For a copier: `wanted`, then the lease. VolumeBusy when it is not to be had in time."""
    end = time.monotonic() + patience_s
    fd = _open(folder.path / "wanted", os.O_RDWR)
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            _wait(end, f"volume {name!r} is being copied by somebody else")
        while not isinstance(lease := try_lease(folder, worker=COPIER), Lease):
            _wait(end, f"an instance used volume {name!r} for {patience_s:g} s without a pause")
        try:
            yield
        finally:
            lease.release()
    finally:
        os.close(fd)


def settle(folder: VolumeFolder) -> None:
    """Finish what a killed restore had begun to put in place. Only by who holds the lease."""
    if folder.ready.is_dir():
        if folder.data.exists():
            folder.data.rename(folder.path / f"old-{os.urandom(8).hex()}")
        folder.ready.rename(folder.data)


def _open(path: Path, flags: int) -> int:
    """Workers write here: a link in the place of a file is no volume's. FileNotFoundError."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as bad:
        if bad.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(errno.ENOENT, "a link is in its place", str(path)) from None


def _wait(end: float, message: str) -> None:
    if time.monotonic() >= end:
        raise VolumeBusy(message)
    time.sleep(_LOOK_S)


def said_in(fd: int) -> tuple[int, int]:
    """The worker and the epoch; of a file that is new or was cut, none and 0."""
    try:
        body = json.loads(os.pread(fd, _MAX_LEASE_BYTES, 0))
        return int(body["worker"]), int(body["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return COPIER, 0
