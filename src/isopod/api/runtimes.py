"""/v1/runtimes: what this node can run."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from isopod.api.context import NDJSON, TheNode, Who, needs, stream
from isopod.control.preparing import prepare
from isopod.control.runtimes import RuntimeStatus, list_runtimes

router = APIRouter(prefix="/v1/runtimes", tags=["runtimes"])


class RuntimeList(BaseModel):
    runtimes: list[RuntimeStatus]


@router.get("", openapi_extra=needs("read"))
async def runtimes(who: Who, node: TheNode) -> RuntimeList:
    """Every runtime, and whether it is compiled for this machine."""
    return RuntimeList(runtimes=await list_runtimes(who, catalog=node.catalog))


@router.post(
    "/{name}/prepare",
    openapi_extra=needs("operator"),
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {NDJSON: {}},
            "description": 'lines {"progress": 0.0 to 1.0, "text": ...}, or a last {"error": ...}',
        }
    },
)
async def prepare_runtime(
    request: Request, who: Who, node: TheNode, name: str
) -> StreamingResponse:
    """Compile a runtime for this machine; nothing happens when that is done already."""
    items = prepare(who, name, node=node)
    return await stream(request, items, lambda p: {"progress": p.progress, "text": p.text})
