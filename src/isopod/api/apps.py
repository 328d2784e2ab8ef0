"""/v1/apps: list, show, delete, roll back, put to sleep, read the log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from isopod.api.context import NDJSON, TheApp, TheNode, Who, needs, stream
from isopod.control.apps import (
    AppDetail,
    AppSummary,
    app_url,
    delete_app,
    get_app,
    list_apps,
    sleep_app,
)
from isopod.control.log_lines import Wanted
from isopod.control.logs import read_log
from isopod.control.rollback import rollback
from isopod.model.log import Level

router = APIRouter(prefix="/v1/apps", tags=["apps"])


class AppList(BaseModel):
    apps: list[AppSummary]


class RollbackBody(BaseModel):
    version: int | None = Field(None, ge=1, description="none: the one before the live version")


class RolledBack(BaseModel):
    app: str
    version: int
    digest: str
    url: str


class Slept(BaseModel):
    app: str
    ended: int = Field(description="instances that were ended")


class Deleted(BaseModel):
    app: str
    deleted: bool


@router.get("", openapi_extra=needs("read"))
async def apps(who: Who, node: TheNode) -> AppList:
    """Every app of the tenant."""
    return AppList(apps=await list_apps(who, node=node))


@router.get("/{name}", openapi_extra=needs("read"))
async def app(who: Who, node: TheNode, name: TheApp) -> AppDetail:
    """One app, its versions and its instances."""
    return await get_app(who, name, node=node)


@router.delete("/{name}", openapi_extra=needs("deploy"))
async def delete(who: Who, node: TheNode, name: TheApp) -> Deleted:
    """The app, all its versions and its log, for ever."""
    await delete_app(who, name, node=node)
    return Deleted(app=name, deleted=True)


@router.post("/{name}/rollback", openapi_extra=needs("deploy"))
async def roll_back(who: Who, node: TheNode, name: TheApp, body: RollbackBody) -> RolledBack:
    """Let an earlier version serve."""
    the_app, version = await rollback(who, name, body.version, node=node)
    return RolledBack(
        app=name,
        version=version.number,
        digest=version.digest,
        url=app_url(the_app, who.tenant, node.settings),
    )


@router.post("/{name}/sleep", openapi_extra=needs("deploy"))
async def sleep(who: Who, node: TheNode, name: TheApp) -> Slept:
    """End the app's idle instances now; the next request starts one."""
    return Slept(app=name, ended=await sleep_app(who, name, node=node))


@router.get(
    "/{name}/logs",
    openapi_extra=needs("read"),
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {}}, "description": "one JSON object a line"}},
)
async def logs(
    *,
    request: Request,
    who: Who,
    node: TheNode,
    name: TheApp,
    since: Annotated[float, Query(ge=0, description="seconds since the epoch")] = 0,
    limit: Annotated[int, Query(ge=0, le=100_000, description="the last so many lines")] = 1000,
    level: Annotated[Level | None, Query(description="lines this grave, or graver")] = None,
    request_id: Annotated[
        str, Query(max_length=128, description="lines of this request (X-Request-Id)")
    ] = "",
    follow: Annotated[bool, Query(description="go on with new lines as they come")] = False,
) -> StreamingResponse:
    """The app's log, oldest line first."""
    wanted = Wanted(since=since, level=level, request_id=request_id)
    lines = await read_log(who, name, wanted=wanted, limit=limit, follow=follow, node=node)
    return await stream(request, lines, lambda line: line, wait_for_first=False)
