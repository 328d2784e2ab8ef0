"""/v1/health and /v1/status."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from isopod import __version__
from isopod.api.context import TheNode, Who, needs
from isopod.control.status import NodeStatus, node_status

router = APIRouter(prefix="/v1", tags=["node"])


class Health(BaseModel):
    ok: bool
    version: str


@router.get("/health", openapi_extra=needs("open"))
async def health() -> Health:
    """Whether control answers; needs no token."""
    return Health(ok=True, version=__version__)


@router.get("/status", openapi_extra=needs("read"))
async def status(who: Who, node: TheNode) -> NodeStatus:
    """The node, its workers and what runs in them."""
    return await node_status(who, node=node)
