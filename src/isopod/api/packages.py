"""/v1/packages: what is deployed, by digest."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from isopod.api.context import TheDigest, TheNode, Who, needs
from isopod.control.packages import MAX_PACKAGE_BYTES, has_package, receive_package
from isopod.errors import PackageTooLarge

router = APIRouter(prefix="/v1/packages", tags=["packages"])


class PackageKept(BaseModel):
    digest: str
    size_bytes: int


@router.head("/{digest}", openapi_extra=needs("deploy"))
async def head(who: Who, node: TheNode, digest: TheDigest) -> Response:
    """204 when the package is here already, 404 when it must be uploaded."""
    return Response(status_code=204 if await has_package(who, digest, node=node) else 404)


@router.put("/{digest}", openapi_extra=needs("deploy"))
async def put(request: Request, who: Who, node: TheNode, digest: TheDigest) -> PackageKept:
    """The package's bytes as the body; kept only when their sha256 is the digest."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_PACKAGE_BYTES:
        raise PackageTooLarge(f"the package is larger than {MAX_PACKAGE_BYTES // 2**20} MiB")
    size = await receive_package(who, digest, request.stream(), node=node)
    return PackageKept(digest=digest, size_bytes=size)
