"""The two places of a volume: with all others, which every shared worker may open, or apart, where
only its tenant's own worker may.

Workers write in both, so what is there may be a link, or a folder that only looks like a volume: no
link is followed below the roots, and what lies apart counts before what shared workers wrote. To
move a volume is one rename: after a kill it is in one place or in the other, whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from isopod.errors import VolumeNotFound
from isopod.owned_file import sync
from isopod.volumes.lease import VolumeFolder
from isopod.volumes.removal import remove_folder
from isopod.volumes.walk import FOLDER, NO_LINK

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class Places:
    """Both roots hold a folder for each tenant, and in that one for each volume."""

    shared: Path
    apart: Path

    def root(self, *, apart: bool) -> Path:
        return self.apart if apart else self.shared

    def is_apart(self, tenant: str, name: str) -> bool:
        """A shared worker can make a folder of that name among its own, and none here."""
        return _is_folder(self.apart / tenant / name)

    def folder(self, tenant: str, name: str) -> VolumeFolder:
        """Where it is now."""
        return VolumeFolder.of(self.root(apart=self.is_apart(tenant, name)), tenant, name)

    def make(self, tenant: str, name: str, *, apart: bool) -> None:
        """An empty one, in the place of one of that name that was deleted in part."""
        self.remove(tenant, name)
        with self._tenant(tenant, apart=apart, make=True) as folder:
            VolumeFolder(folder / name).make()

    def remove(self, tenant: str, name: str) -> None:
        for apart in (False, True):
            with suppress(FileNotFoundError), self._tenant(tenant, apart=apart) as folder:
                remove_folder(folder / name)
        self.wait_no_more(tenant, name)

    def remove_tenant(self, tenant: str) -> None:
        for root in (self.shared, self.apart):
            remove_folder(root / tenant)

    def announce(self, tenant: str, name: str, *, apart: bool) -> None:
        """That it will be in that place, if it is in the other one: workers there wait for it,
        instead of saying that it is gone."""
        if self.is_apart(tenant, name) == apart or not _is_folder(
            self.root(apart=not apart) / tenant / name
        ):
            return
        coming = VolumeFolder(Path(name)).coming
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        # On a full disk, it may be, it is not said.
        with suppress(OSError), self._tenant(tenant, apart=apart, make=True) as folder:
            os.close(os.open(folder / coming, flags, 0o600))

    def wait_no_more(self, tenant: str, name: str) -> None:
        """It will not come."""
        for apart in (False, True):
            with suppress(OSError), self._tenant(tenant, apart=apart) as folder:
                (folder / VolumeFolder(Path(name)).coming).unlink()

    @contextmanager
    def moving(self, tenant: str, name: str, *, apart: bool) -> Iterator[Callable[[bool], bool]]:
        """Of a volume that is in the other place. What it gives moves it and says so, unless
        somebody uses it; with True, workers are told meanwhile to end their instance of its app.
        VolumeNotFound when it is in neither place, or is no volume any more."""
        with ExitStack() as held:
            try:
                source = held.enter_context(self._tenant(tenant, apart=not apart))
                target = held.enter_context(self._tenant(tenant, apart=apart, make=True))
                volume = os.open(source / name, FOLDER)
                held.callback(os.close, volume)
                lease, wanted = (_open_file(one, volume, held) for one in ("lease", "wanted"))
            except OSError as bad:
                if bad.errno not in _GONE:
                    raise
                raise VolumeNotFound(f"volume {name!r} is gone") from None

            def attempt(insist: bool) -> bool:
                if insist:
                    _locked(wanted)  # a copier may have it: then workers give way to that
                if not _locked(lease):
                    return False
                if not os.path.samestat(os.fstat(volume), os.lstat(source / name)):
                    raise VolumeNotFound(f"volume {name!r} is gone: another is in its place")
                _check_parts(volume, name)
                _rename(source / name, target / name)
                for changed in (target, source):  # the new name first
                    sync(changed)
                (target / VolumeFolder(Path(name)).coming).unlink(missing_ok=True)
                return True

            yield attempt

    @contextmanager
    def _tenant(self, tenant: str, *, apart: bool, make: bool = False) -> Iterator[Path]:
        """The tenant's folder, by a name that no link can lead elsewhere. FileNotFoundError."""
        path = self.root(apart=apart) / tenant
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(path, FOLDER)
        except OSError as bad:
            if bad.errno in (errno.ELOOP, errno.ENOTDIR):
                raise FileNotFoundError(bad.errno, "a link is in its place", str(path)) from None
            raise
        try:
            yield Path(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


def _open_file(name: str, folder: int, held: ExitStack) -> int:
    fd = os.open(name, NO_LINK, dir_fd=folder)
    held.callback(os.close, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise FileNotFoundError(errno.ENOENT, "it is no file", name)
    return fd


def _check_parts(volume: int, name: str) -> None:
    """The worker that wrote it may have put a link in the place of what others open next."""
    for part in ("data", "ready", "incoming"):
        try:
            os.close(os.open(part, FOLDER, dir_fd=volume))
        except FileNotFoundError:
            continue  # a restore is on its way, or none
        except OSError as bad:
            if bad.errno not in _GONE:
                raise
            raise VolumeNotFound(f"volume {name!r} is damaged: its {part} is no folder") from None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as bad:
        if bad.errno not in _OCCUPIED:
            raise
        # Not the volume: that is one folder, and we hold it. Kept, in case that somebody asks.
        target.rename(target.with_name(f".aside-{secrets.token_hex(8)}"))
        source.rename(target)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
