"""What is done to a volume by its owner, while no instance uses it.

A restore unpacks beside the data first, so that the app waits for no longer than two renames take,
and a volume is never half restored: what is whole has its name (`ready`) before it takes the place
of the data, and whoever holds the lease next finishes what was begun (`settle`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isopod.errors import UsageError, VolumeTooSmall, disk_full_is_clear
from isopod.volumes import archive
from isopod.volumes.lease import VolumeFolder, owned, settle
from isopod.volumes.removal import remove_folder
from isopod.volumes.size import disk_bytes, folder_bytes

PATIENCE_S = 60.0  # for the requests that the app is answering
_HEADROOM_BYTES = 64 << 20  # of an archive, for its headers


@dataclass(frozen=True, slots=True)
class CopyJob:
    """`what`: "backup" (to `archive`, of `path`), "restore", "copy-in" (to `path`) or "delete".
    `work`: an empty folder."""

    what: str
    name: str
    folder: Path
    archive: Path
    work: Path
    path: str = ""
    size_mib: int = 0

    def to_json(self) -> dict[str, Any]:
        paths = {"folder": str(self.folder), "archive": str(self.archive), "work": str(self.work)}
        return {**asdict(self), **paths}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> CopyJob:
        paths = {name: Path(body[name]) for name in ("folder", "archive", "work")}
        return CopyJob(**{**body, **paths})


def run(job: CopyJob) -> dict[str, Any]:
    """What was done, in numbers. Raises what the job's steps raise; DiskFull, VolumeBusy."""
    folder = VolumeFolder(job.folder)
    with disk_full_is_clear(str(job.folder)):
        _sweep(folder)
        if job.what == "backup":
            return _backup(job, folder)
        if job.what == "restore":
            return _restore(job, folder)
        if job.what == "copy-in":
            return _copy_in(job, folder)
        if job.what == "delete":
            with owned(folder, name=job.name, patience_s=PATIENCE_S):
                remove_folder(folder.data)
            return {}
    raise UsageError(f"nobody knows how to {job.what!r} a volume")


def most_file_bytes(job: CopyJob) -> int:
    """No file that a job makes is larger: neither an archive nor a database's copy. A guest can say
    in a kilobyte that its database has terabytes, or give one file a million names."""
    # A volume that was made smaller may hold more. A small file's path may be longer than the file.
    holds = max(job.size_mib << 20, disk_bytes(VolumeFolder(job.folder).data))
    return holds * 3 // 2 + _HEADROOM_BYTES


def _backup(job: CopyJob, folder: VolumeFolder) -> dict[str, Any]:
    with owned(folder, name=job.name, patience_s=PATIENCE_S):
        try:
            return asdict(archive.pack(folder.data, job.path, job.archive, work=job.work))
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise VolumeTooSmall(
                f"a copy of volume {job.name!r} would be larger than the volume may be: files have "
                "several names (hard links), or pretend to be larger than they are",
                hint="copy out its folders one by one",
                details={"size_mib": job.size_mib},
            ) from None


def _restore(job: CopyJob, folder: VolumeFolder) -> dict[str, Any]:
    archive.check(job.archive, room_bytes=job.size_mib << 20, name=job.name)
    folder.incoming.mkdir(mode=0o700)
    copied = archive.unpack(job.archive, folder.incoming)
    with owned(folder, name=job.name, patience_s=PATIENCE_S):
        folder.incoming.rename(folder.ready)
        settle(folder)
    _sweep(folder)
    return asdict(copied)


def _copy_in(job: CopyJob, folder: VolumeFolder) -> dict[str, Any]:
    with owned(folder, name=job.name, patience_s=PATIENCE_S):
        room = (job.size_mib << 20) - folder_bytes(folder.data)
        if room <= 0:
            raise VolumeTooSmall(f"volume {job.name!r} is full", details={"size_mib": job.size_mib})
        archive.check(job.archive, room_bytes=room, name=job.name)
        return asdict(archive.unpack(job.archive, folder.data, job.path))


def _sweep(folder: VolumeFolder) -> None:
    """What was replaced, and what a killed restore had unpacked in part."""
    for old in (*folder.path.glob("old-*"), folder.incoming):
        if old.exists():
            remove_folder(old)
