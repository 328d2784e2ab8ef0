"""What a worker works with on disk: the folders that all shared workers use, or those of the one
tenant whose own worker it is.

A tenant's own worker sees the routes, trees, images, machine code, logs and volumes of that tenant
alone, and the others see none of its: they are in `cordons/TENANT/` and `volumes-apart/TENANT/`,
which no rule of a shared worker names.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from isopod.model.tenant import TenantName
from isopod.sandbox.worker import Folders
from isopod.settings import NodeSettings
from isopod.volumes.removal import remove_folder


@dataclass(frozen=True, slots=True)
class WorkerFolders:
    routes: Path  # routes.db
    trees: Path
    images: Path
    machine_code: Path  # of apps' own modules; made by who compiles for it, read by this one
    logs: Path
    spool: Path  # spool.db
    tmp: Path
    volumes: Path  # that it may open
    volumes_root: Path  # a folder for each tenant in it; that one, or the one above it
    quota: Path  # a folder of which it may open `quota_files` alone, if it names any
    quota_files: tuple[Path, ...] = ()

    @staticmethod
    def of(settings: NodeSettings, index: int, tenant: TenantName | None) -> WorkerFolders:
        """Of the worker of that number, which is `tenant`'s own or (None) a shared one."""
        if tenant is not None:
            return _own(settings, index, tenant)
        return WorkerFolders(
            routes=settings.routes_path,
            trees=settings.trees_dir,
            images=settings.images_dir,
            machine_code=settings.machine_code_dir,
            logs=settings.logs_dir,
            spool=settings.spool_path(index),
            tmp=settings.worker_tmp(index),
            volumes=settings.volumes_dir,
            volumes_root=settings.volumes_dir,
            quota=settings.quota_dir,
        )

    def prepare(self, settings: NodeSettings) -> Folders:
        """Make those that a worker cannot make once it is shut in, and say which it needs. It needs
        no blobs: who makes trees and images for it reads them (see `isopod.server.maker`)."""
        remove_folder(self.tmp)  # a killed predecessor's
        made = (
            *(self.tmp, self.spool.parent, self.quota, self.volumes),
            *(self.trees, self.images, self.machine_code, self.logs),
        )
        for folder in made:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self.quota_files:
            file.touch(mode=0o600)
        return Folders(
            read=(
                *(settings.cache_dir / "modules", settings.cache_dir / "runtimes"),
                *(self.trees, self.images, self.machine_code, self.routes.parent),
            ),
            change=(
                *(self.logs, self.spool.parent, self.tmp, self.volumes),
                *(self.quota_files or (self.quota,)),
            ),
        )


def _own(settings: NodeSettings, index: int, tenant: TenantName) -> WorkerFolders:
    home = settings.cordons_dir / tenant
    return WorkerFolders(
        routes=home / "routes" / "routes.db",
        trees=home / "trees",
        images=home / "images",
        machine_code=home / "machine-code",
        logs=home / "logs",
        # Not by number, which another tenant's may get: usage waits there to be collected.
        spool=settings.spools_dir / f"tenant-{tenant}" / "spool.db",
        tmp=settings.worker_tmp(index),
        volumes=settings.apart_volumes_dir / tenant,
        volumes_root=settings.apart_volumes_dir,
        quota=settings.quota_dir,
        quota_files=(settings.quota_dir / tenant,),
    )


def forget_own_files(settings: NodeSettings, tenant: TenantName) -> None:
    """When a tenant's own worker is gone for good: what can be made again. Not its logs, which the
    apps that come back would miss."""
    home = settings.cordons_dir / tenant
    for name in ("trees", "images", "machine-code"):
        shutil.rmtree(home / name, ignore_errors=True)
    for folder in (home / "logs", home):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
