"""/v1/volumes: list, create, resize, delete; tar archives out and in."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from isopod.api.context import TheNode, Who, needs
from isopod.control.turns import Seat
from isopod.control.volumes import (
    CopySummary,
    VolumeSummary,
    backup_volume,
    create_volume,
    delete_volume,
    fill_volume,
    list_volumes,
    resize_volume,
)
from isopod.model.volume import DEFAULT_SIZE_MIB, VolumeName

router = APIRouter(prefix="/v1/volumes", tags=["volumes"])
TAR = "application/x-tar"
_CHUNK_BYTES = 1 << 20


def _volume_name(name: Annotated[str, Path(description="the volume's name")]) -> VolumeName:
    return VolumeName.parse(name)


TheVolume = Annotated[VolumeName, Depends(_volume_name)]


class VolumeList(BaseModel):
    volumes: list[VolumeSummary]


class CreateBody(BaseModel):
    name: str
    size_mib: int = Field(DEFAULT_SIZE_MIB, description="the most that it may hold")


class ResizeBody(BaseModel):
    size_mib: int


class VolumeDeleted(BaseModel):
    name: str
    deleted: bool


@router.get("", openapi_extra=needs("read"))
async def volumes(who: Who, node: TheNode) -> VolumeList:
    """Every volume of the tenant."""
    return VolumeList(volumes=await list_volumes(who, node=node))


@router.post("", openapi_extra=needs("deploy"))
async def create(who: Who, node: TheNode, body: CreateBody) -> VolumeSummary:
    """An empty one."""
    return await create_volume(who, VolumeName.parse(body.name), body.size_mib, node=node)


@router.patch("/{name}", openapi_extra=needs("deploy"))
async def resize(who: Who, node: TheNode, name: TheVolume, body: ResizeBody) -> VolumeSummary:
    """Its size; the app's idle instance ends, and the next one has it."""
    return await resize_volume(who, name, body.size_mib, node=node)


@router.delete("/{name}", openapi_extra=needs("deploy"))
async def delete(who: Who, node: TheNode, name: TheVolume) -> VolumeDeleted:
    """With all that it holds, for ever. Refused while an app mounts it."""
    await delete_volume(who, name, node=node)
    return VolumeDeleted(name=name, deleted=True)


@router.get(
    "/{name}/archive",
    openapi_extra=needs("deploy"),
    response_class=StreamingResponse,
    responses={200: {"content": {TAR: {}}, "description": "a tar archive"}},
)
async def archive(
    who: Who,
    node: TheNode,
    name: TheVolume,
    path: Annotated[str, Query(description="of a file or folder in the volume")] = "",
) -> StreamingResponse:
    """What the volume holds, SQLite databases each as one whole file. The app waits until it is
    copied. `x-isopod-copied` is the summary in JSON."""
    file, seat, done = await backup_volume(who, name, path, node=node)
    size = os.fstat(file.fileno()).st_size
    headers = {"content-length": str(size), "x-isopod-copied": _header(done)}
    return StreamingResponse(_sent(file, seat), media_type=TAR, headers=headers)


@router.put("/{name}/archive", openapi_extra=needs("deploy"))
async def restore(request: Request, who: Who, node: TheNode, name: TheVolume) -> CopySummary:
    """A tar archive in the place of all that the volume holds: whole or not at all."""
    return await fill_volume(who, name, "", request.stream(), replace=True, node=node)


@router.post("/{name}/archive", openapi_extra=needs("deploy"))
async def copy_in(
    request: Request,
    who: Who,
    node: TheNode,
    name: TheVolume,
    path: Annotated[str, Query(description="the folder in the volume, made if need be")] = "",
) -> CopySummary:
    """A tar archive's entries into a folder of the volume, over what is there."""
    return await fill_volume(who, name, path, request.stream(), replace=False, node=node)


async def _sent(file: BinaryIO, seat: Seat) -> AsyncIterator[bytes]:
    try:
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
    finally:
        seat.leave()


def _header(done: CopySummary) -> str:
    """Printable ASCII, whatever the files are called."""
    return json.dumps(asdict(replace(done, raw=done.raw[:10], left_out=done.left_out[:10])))
