"""/v1/audit: who changed what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from isopod.api.context import TheNode, Who, needs
from isopod.control.audit import MAX_ENTRIES, read_audit
from isopod.state.audit import AuditEntry

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditLog(BaseModel):
    entries: list[AuditEntry]


@router.get("", openapi_extra=needs("admin"))
async def audit(
    who: Who,
    node: TheNode,
    since: Annotated[float, Query(ge=0, description="seconds since the epoch")] = 0,
    limit: Annotated[int, Query(ge=0, le=MAX_ENTRIES, description="the last so many")] = 100,
    all_tenants: Annotated[bool, Query(description="the operator's to ask")] = False,
) -> AuditLog:
    """Changes and attempts to change something, newest first."""
    found = await read_audit(who, since=since, limit=limit, all_tenants=all_tenants, node=node)
    return AuditLog(entries=found)
