"""/v1/apps/{name}/learning: which hosts an app needs, by letting it connect for a while."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from isopod.api.context import TheApp, TheNode, Who, needs
from isopod.control.learning import (
    MOST_S,
    Learned,
    begin_learning,
    end_learning,
    look_at_learning,
)

router = APIRouter(prefix="/v1/apps/{name}/learning", tags=["apps"])


class BeginBody(BaseModel):
    for_s: float = Field(60, description=f"seconds, {MOST_S:g} at most")


@router.post("", openapi_extra=needs("deploy"))
async def begin(who: Who, node: TheNode, name: TheApp, body: BeginBody) -> Learned:
    """The app may connect to what its tenant may, and what it reaches is noted."""
    return await begin_learning(who, name, body.for_s, node=node)


@router.get("", openapi_extra=needs("read"))
async def look(who: Who, node: TheNode, name: TheApp) -> Learned:
    """What it reached, as the list that allows just that."""
    return await look_at_learning(who, name, node=node)


@router.delete("", openapi_extra=needs("deploy"))
async def end(who: Who, node: TheNode, name: TheApp) -> Learned:
    """The app's own list holds again."""
    return await end_learning(who, name, node=node)
