"""What a handler is given: the caller and the node."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import Depends, Path, Request
from starlette.responses import StreamingResponse

from isopod.api.errors import as_ours, log, request_id, wire
from isopod.control.node import Node
from isopod.model.ids import AppName, Digest
from isopod.model.principal import Principal, Scope

T = TypeVar("T")
NDJSON = "application/x-ndjson"


def _node(request: Request) -> Node:
    node = request.app.state.node
    assert isinstance(node, Node)
    return node


def _principal(request: Request) -> Principal:
    who = request.state.principal
    assert isinstance(who, Principal)
    return who


def _app_name(name: Annotated[str, Path(description="the app's name")]) -> AppName:
    return AppName.parse(name)


def _digest(digest: Annotated[str, Path(description="sha256, 64 hexadecimal digits")]) -> Digest:
    return Digest.parse(digest)


def needs(scope: Scope | Literal["operator", "any", "open"]) -> dict[str, Any]:
    """What a route says of itself in the OpenAPI document. The use case enforces it; a test holds
    the two together, for every route there is."""
    return {"x-isopod-scope": scope}


TheNode = Annotated[Node, Depends(_node)]
Who = Annotated[Principal, Depends(_principal)]
TheApp = Annotated[AppName, Depends(_app_name)]
TheDigest = Annotated[Digest, Depends(_digest)]


async def stream(
    request: Request,
    items: AsyncGenerator[T],
    show: Callable[[T], dict[str, Any]],
    *,
    wait_for_first: bool = True,
) -> StreamingResponse:
    """`items` as NDJSON. With `wait_for_first` an error before the first item has its own HTTP
    status; otherwise it is the last line. A caller that hangs up closes `items`."""
    first: list[T] = []
    if wait_for_first:
        with suppress(StopAsyncIteration):
            first.append(await anext(items))

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(items):
            try:
                yield b""  # the status goes out now, however long the first line takes
                for item in first:
                    yield orjson.dumps(show(item)) + b"\n"
                async for item in items:
                    yield orjson.dumps(show(item)) + b"\n"
            except Exception as error:
                ours = as_ours(error)
                if ours is not error:
                    log.error("request %s failed", request_id(request), exc_info=error)
                yield orjson.dumps(wire(ours, request_id(request))) + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON)
