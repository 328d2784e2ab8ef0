"""How large a request may be that is read into memory before anybody looks at it: every token,
also one that may only read, can send one. Packages and archives go to the disk as they come, and
are bounded there."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isopod.api.errors import respond
from isopod.errors import BadRequest

MOST_BYTES = 4 << 20  # all settings and secrets of an app are far less
_TOO_LARGE = f"the request body is larger than {MOST_BYTES >> 20} MiB"


class BoundedBodies:
    """Wraps the API, within its guard."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_streamed(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and (len(length) > 18 or int(length) > MOST_BYTES):
            request_id = scope.get("state", {}).get("request_id", "")
            await respond(BadRequest(_TOO_LARGE), request_id)(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                # The one kind of error that the framework lets through while it reads a body.
                raise HTTPException(400, _TOO_LARGE)
            return message

        await self._app(scope, bounded, send)


def _is_streamed(method: str, path: str) -> bool:
    if path.startswith("/v1/volumes/"):
        return method in ("PUT", "POST") and path.endswith("/archive")
    return method == "PUT" and path.startswith("/v1/packages/")
