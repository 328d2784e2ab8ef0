"""Volumes, for those whose apps mount them: made, resized, deleted, copied in and out.

What a volume holds was written by a guest: control never opens it. A process of its own does, shut
in with that volume alone (`server.volume_process`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isopod.control.amounts import check_most, check_tenant, storage_bytes
from isopod.control.audit import audited, entry
from isopod.control.child import child_argv, how_it_ended
from isopod.control.node import Node
from isopod.control.switching import put_route
from isopod.control.turns import Seat
from isopod.errors import (
    IsopodError,
    NameTaken,
    QuotaExceeded,
    UsageError,
    VolumeBusy,
    VolumeInUse,
    VolumeNotFound,
    VolumeTooSmall,
    disk_full_is_clear,
)
from isopod.model.ids import AppName
from isopod.model.principal import Principal
from isopod.model.tenant import Quota
from isopod.model.volume import MAX_SIZE_MIB, VolumeName
from isopod.settings import bare_environment
from isopod.state.handles import TenantHandles
from isopod.state.volumes import Volume
from isopod.volumes.copying import CopyJob
from isopod.volumes.lease import VolumeFolder
from isopod.volumes.removal import remove_folder

_PROCESS = "isopod.server.volume_process"
_MOST_VOLUMES = 200  # of one tenant
_COPY_S = 3600.0
_MOST_SAID_BYTES = 8 << 20  # 200 paths, with JSON's escapes
_HEADROOM_BYTES = 64 << 20  # of an archive, for its headers


@dataclass(frozen=True, slots=True)
class VolumeSummary:
    name: str
    size_mib: int  # the most that it may hold
    used_bytes: int  # as it counts: each file with 16 KiB at least
    app: str  # that mounts it; "" for none
    created_at: float


@dataclass(frozen=True, slots=True)
class CopySummary:
    """`raw`: databases that SQLite could not read, copied as the bytes they have. `left_out`: what
    an archive cannot hold."""

    name: str
    files: int
    bytes: int
    databases: int
    raw: list[str]
    left_out: list[str]


async def list_volumes(who: Principal, *, node: Node) -> list[VolumeSummary]:
    """The tenant's, by name."""
    who.need("read")

    def read() -> list[VolumeSummary]:
        return [_summary(who, one, node) for one in node.state.of(who.tenant).volumes.all()]

    return await asyncio.to_thread(read)


async def create_volume(
    who: Principal, name: VolumeName, size_mib: int, *, node: Node
) -> VolumeSummary:
    """NameTaken, QuotaExceeded, DiskFull."""

    def create() -> VolumeSummary:
        now = node.clock()
        volume = Volume(name, size_mib, now)
        with node.state.transaction() as t:
            quota, mine = check_tenant(who, t.node.tenants), t.of(who.tenant)
            if mine.volumes.get(name) is not None:
                raise NameTaken(f"there is a volume {name!r} already", hint="choose another name")
            check_most("volumes", len(mine.volumes.sizes()), _MOST_VOLUMES)
            _check_storage(quota, size_mib, mine, node)
            mine.volumes.add(volume)
            mine.audit.add(entry(who, "volume.create", name, now, details={"size_mib": size_mib}))
            tenant = t.node.tenants.get(who.tenant)
            with disk_full_is_clear(str(node.settings.volumes_dir)):
                apart = tenant is not None and tenant.cordon == "tenant"
                node.places.make(who.tenant, name, apart=apart)
                node.volume_sizes.forget(who.tenant, name)
        return _summary(who, volume, node)

    async with audited(who, "volume.create", name, node=node):
        who.need("deploy")
        _check_size(size_mib)
        return await asyncio.to_thread(create)


async def resize_volume(
    who: Principal, name: VolumeName, size_mib: int, *, node: Node
) -> VolumeSummary:
    """Also to less than it holds: then nothing more can be written. The next instance of its app
    has the new size."""

    def commit() -> Volume:
        now = node.clock()
        with node.state.transaction() as t:
            quota, mine = check_tenant(who, t.node.tenants), t.of(who.tenant)
            before = _existing(mine, name)
            _check_storage(quota, size_mib - before.size_mib, mine, node)
            mine.volumes.resize(name, size_mib)
            mine.audit.add(entry(who, "volume.resize", name, now, details={"size_mib": size_mib}))
        mine = node.state.of(who.tenant)
        volume = _existing(mine, name)
        app = mine.apps.labelled(AppName(volume.app)) if volume.app else None
        if app is not None:
            put_route(app, who.tenant, node)
        return volume

    async with audited(who, "volume.resize", name, node=node):
        who.need("deploy")
        _check_size(size_mib)
        volume = await asyncio.to_thread(commit)
        await node.workers.refresh(volume.app)
        if volume.app:
            await node.workers.sleep(volume.app)
    return await asyncio.to_thread(_summary, who, volume, node)


async def delete_volume(who: Principal, name: VolumeName, *, node: Node) -> None:
    """With all that it holds, for ever. VolumeNotFound; VolumeInUse while an app mounts it;
    VolumeBusy while an instance of an app that was deleted ends."""

    def check() -> Volume:
        volume = _existing(node.state.of(who.tenant), name)
        _check_unmounted(volume)
        return volume

    def forget() -> None:
        now = node.clock()
        with node.state.transaction() as t:
            mine = t.of(who.tenant)
            _check_unmounted(_existing(mine, name))
            mine.volumes.delete(name)
            mine.audit.add(entry(who, "volume.delete", name, now))
        node.places.remove(who.tenant, name)
        node.volume_sizes.forget(who.tenant, name)

    async with audited(who, "volume.delete", name, node=node):
        who.need("deploy")
        volume = await asyncio.to_thread(check)
        with _one_copy(who, name, node):
            await _run(who, volume, "delete", Path(), "", node=node)
            await asyncio.shield(asyncio.to_thread(forget))


async def backup_volume(
    who: Principal, name: VolumeName, path: str, *, node: Node
) -> tuple[BinaryIO, Seat, CopySummary]:
    """What is at `path` as a tar archive, in a file that is gone when it is closed: then leave the
    seat. The app waits while it is made. VolumeNotFound, PathNotFound, VolumeBusy, DiskFull;
    TooManyRequests while too many others are read, however slowly."""
    action = "volume.copy_out" if path.strip("/") else "volume.backup"
    async with audited(who, action, name, node=node):
        who.need("deploy")
        volume = await asyncio.to_thread(lambda: _existing(node.state.of(who.tenant), name))
        with _one_copy(who, name, node):
            seat = node.archives.take(who.tenant)
            folder = _new_folder(node)
            archive = folder / "archive.tar"
            try:
                async with node.uploads.turn(who.tenant):
                    done = await _run(who, volume, "backup", archive, path, node=node)
                await _note(who, action, name, done, node)
                opened = archive.open("rb")
            except BaseException:
                seat.leave()
                raise
            finally:
                await asyncio.to_thread(remove_folder, folder)
    return opened, seat, CopySummary(name=name, **done)


async def fill_volume(
    who: Principal,
    name: VolumeName,
    path: str,
    chunks: AsyncIterator[bytes],
    *,
    replace: bool,
    node: Node,
) -> CopySummary:
    """A tar archive in the place of all that the volume holds (`replace`), or over what is at
    `path`. ArchiveInvalid and VolumeTooSmall change nothing; VolumeBusy, DiskFull."""
    action = "volume.restore" if replace else "volume.copy_in"
    async with audited(who, action, name, node=node):
        who.need("deploy")
        volume = await asyncio.to_thread(lambda: _existing(node.state.of(who.tenant), name))
        with _one_copy(who, name, node):
            folder = _new_folder(node)
            archive = folder / "archive.tar"
            try:
                async with node.uploads.turn(who.tenant):
                    with disk_full_is_clear(str(folder)):
                        await _receive(archive, chunks, volume)
                    what = "restore" if replace else "copy-in"
                    done = await _run(who, volume, what, archive, path, node=node)
                await _note(who, action, name, done, node)
            finally:
                await asyncio.to_thread(remove_folder, folder)
    return CopySummary(name=name, **done)


# -------------------------------------------------------------------------------------------


async def _run(
    who: Principal, volume: Volume, what: str, archive: Path, path: str, *, node: Node
) -> dict[str, Any]:
    work = _new_folder(node)
    job = CopyJob(
        what=what,
        name=volume.name,
        folder=_folder(who, volume.name, node).path,
        archive=archive if archive.name else work / "none",
        work=work,
        path=path,
        size_mib=volume.size_mib,
    )
    asked = {"job": job.to_json(), "require_sandbox": node.settings.require_sandbox}
    process = await asyncio.create_subprocess_exec(
        *child_argv(_PROCESS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=bare_environment(),
        start_new_session=True,
        limit=_MOST_SAID_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_COPY_S):
            process.stdin.write(json.dumps(asked).encode())
            process.stdin.close()
            said = await process.stdout.readline()
            if not said:
                await process.wait()
        answer = json.loads(said)
    except TimeoutError:
        raise VolumeBusy(f"volume {volume.name!r} was not copied within {_COPY_S:g} s") from None
    except ValueError:
        status = process.returncode or 0
        raise IsopodError(f"the process that copies volumes {how_it_ended(status)}") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(asyncio.CancelledError):
            await asyncio.shield(process.wait())
        await asyncio.to_thread(remove_folder, work)
    if "error" in answer:
        raise IsopodError.from_wire(answer["error"])
    result = answer["result"]
    assert isinstance(result, dict)
    return result


async def _receive(archive: Path, chunks: AsyncIterator[bytes], volume: Volume) -> None:
    most, size = (volume.size_mib << 20) + _HEADROOM_BYTES, 0
    with archive.open("xb", buffering=2**20) as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise VolumeTooSmall(
                    f"the archive is larger than volume {volume.name!r} of {volume.size_mib} MiB",
                    details={"size_mib": volume.size_mib, "needs_mib": size >> 20},
                )
            file.write(chunk)


async def _note(who: Principal, action: str, name: str, done: dict[str, Any], node: Node) -> None:
    details = {"files": done["files"], "bytes": done["bytes"]}
    noted = entry(who, action, name, node.clock(), details=details)
    await asyncio.to_thread(node.state.of(who.tenant).audit.add, noted)


@contextmanager
def _one_copy(who: Principal, name: str, node: Node) -> Iterator[None]:
    key = f"{who.tenant} {name}"
    if key in node.copying:
        raise VolumeBusy(f"volume {name!r} is being copied, moved or deleted already")
    node.copying.add(key)
    try:
        yield
    finally:
        node.copying.discard(key)


def _new_folder(node: Node) -> Path:
    folder = node.settings.uploads_dir / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    return folder


def _folder(who: Principal, name: str, node: Node) -> VolumeFolder:
    return node.places.folder(who.tenant, name)


def _existing(mine: TenantHandles, name: VolumeName) -> Volume:
    volume = mine.volumes.get(name)
    if volume is None:
        raise VolumeNotFound(f"there is no volume {name!r}")
    return volume


def _check_unmounted(volume: Volume) -> None:
    if volume.app:
        raise VolumeInUse(f"volume {volume.name!r} is mounted by app {volume.app!r}")


def _check_size(size_mib: int) -> None:
    if not 1 <= size_mib <= MAX_SIZE_MIB:
        raise UsageError(f"a size of {size_mib} MiB is not within 1 to {MAX_SIZE_MIB}")


def _check_storage(quota: Quota, more_mib: int, mine: TenantHandles, node: Node) -> None:
    """What a volume may hold counts, not what it holds: its app must not be refused later."""
    if not quota.storage_mib or more_mib <= 0:
        return
    used_bytes = storage_bytes(mine=mine, blobs=node.blobs) + (more_mib << 20)
    if used_bytes > quota.storage_mib << 20:
        used = -(-used_bytes >> 20)
        raise QuotaExceeded(
            f"the tenant would need {used} MiB of storage and may have {quota.storage_mib}",
            details={"quota": "storage_mib", "limit": quota.storage_mib, "used": used},
        )


def _summary(who: Principal, volume: Volume, node: Node) -> VolumeSummary:
    mine = node.state.of(who.tenant)
    app = mine.apps.labelled(AppName(volume.app)) if volume.app else None
    return VolumeSummary(
        name=volume.name,
        size_mib=volume.size_mib,
        used_bytes=node.volume_sizes.used_bytes(who.tenant, volume.name),
        app=app.name if app else "",
        created_at=volume.created_at,
    )
