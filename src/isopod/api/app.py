"""Puts the API together around one node."""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.types import ASGIApp

from isopod import __version__
from isopod.api import (
    apps,
    audit,
    deploys,
    errors,
    jobs,
    learning,
    members,
    node,
    packages,
    runtimes,
    secrets,
    tenants,
    tokens,
    usage,
    volumes,
)
from isopod.api.attempts import Attempts
from isopod.api.bodies import BoundedBodies
from isopod.api.guard import Guard
from isopod.control.node import Node


def create_app(the_node: Node, *, token: str) -> ASGIApp:
    """The ASGI application of the control port."""
    api = FastAPI(
        title="isopod",
        version=__version__,
        description="The control API of one isopod node. Send the token as `Authorization: "
        "Bearer TOKEN`; `x-isopod-scope` is what a route wants of it. "
        "Errors are `{error: {code, message, hint, whose, details, request_id}}`.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.node = the_node
    errors.install(api)
    resources = (
        *(node, apps, secrets, learning, deploys, packages, volumes, jobs, runtimes),
        *(tenants, members, tokens, audit, usage),
    )
    for resource in resources:
        api.include_router(resource.router)
    return Guard(
        BoundedBodies(api), token=token, node=the_node, attempts=Attempts(clock=time.monotonic)
    )
