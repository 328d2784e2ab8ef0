"""/v1/deploys: a package becomes a live version; the steps are streamed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from isopod.api.context import NDJSON, TheNode, Who, needs, stream
from isopod.control.apps import app_url
from isopod.control.deploy_request import DeployRequest
from isopod.control.deploys import Deployed, deploy
from isopod.model.build import Step
from isopod.model.ids import AppName, Digest

router = APIRouter(prefix="/v1/deploys", tags=["deploys"])


class DeployBody(BaseModel):
    package: str = Field(description="digest of an uploaded package")
    name: str | None = Field(None, description="the app; none: from isopod.toml or the folder")
    folder_name: str = Field("", max_length=255)
    source: str = Field("", max_length=4096, description="machine and folder it comes from")
    env: dict[str, str] = Field(default_factory=dict)
    expected_name: str | None = Field(
        None,
        description="what the caller takes the name for that the package will give, if `name` is "
        "not said: the app is tried with the secrets of that app",
    )
    allow_new: bool = Field(
        False, description="it may ask for more than the live version does, such as a host"
    )
    strict: bool = Field(False, description="fail unless its snapshot is sound")


@router.post(
    "",
    openapi_extra=needs("deploy"),
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {NDJSON: {}},
            "description": 'lines {"step": ...}, then {"result": ...} or {"error": ...}',
        }
    },
)
async def create(request: Request, who: Who, node: TheNode, body: DeployBody) -> StreamingResponse:
    """Build and publish. The result is written only when it is durable and served."""
    asked = DeployRequest(
        package=Digest.parse(body.package),
        name=AppName.parse(body.name) if body.name else None,
        folder_name=body.folder_name,
        source=body.source,
        env=body.env,
        strict=body.strict,
        expected_name=AppName.parse(body.expected_name) if body.expected_name else None,
        allow_new=body.allow_new,
    )

    def show(item: Step | Deployed) -> dict[str, Any]:
        if isinstance(item, Step):
            return {"step": item.to_json()}
        version = item.version
        return {
            "result": {
                "app": item.app.name,
                "version": version.number,
                "digest": version.digest,
                "url": app_url(item.app, who.tenant, node.settings),
                "unchanged": item.unchanged,
                "built": item.built,
                "capabilities": asdict(item.capabilities),
                "dependencies": [list(one) for one in version.build.dependencies],
                "snapshot": version.snapshot.to_json() if version.snapshot else None,
                "warmup": [one.text() for one in version.spec.startup.warmup],
            }
        }

    return await stream(request, deploy(who, asked, node=node), show)
