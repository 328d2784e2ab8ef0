"""What every request passes first: its id, its Host header, its token.

The Host check stops a web page that points its own name at 127.0.0.1 (DNS rebinding); the token
is compared in constant time. Plain ASGI, so that streams pass untouched.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isopod.api.errors import respond
from isopod.errors import HostRefused, IsopodError, Unauthorized
from isopod.model.principal import OPERATOR
from isopod.settings import NodeSettings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN_PATHS = frozenset({"/v1/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """Wraps the API; refuses before anything of it runs."""

    def __init__(self, app: ASGIApp, *, token: str, settings: NodeSettings) -> None:
        self._app = app
        self._token = token.encode()
        self._names = _LOOPBACK | {settings.control_host.lower()}
        self._names |= {name.lower() for name in settings.control_names}
        # Listening on every address: then any of the machine's may be named. A rebound name is
        # never a bare address.
        self._any_address = _is_wildcard(settings.control_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        try:
            self._check(scope["path"], headers)
        except IsopodError as error:
            await respond(error, request_id)(scope, receive, send_with_id)
            return
        scope["state"]["principal"] = OPERATOR
        await self._app(scope, receive, send_with_id)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        hostname = _hostname(headers.get(b"host", b"").decode("latin-1"))
        if hostname not in self._names and not (self._any_address and _is_address(hostname)):
            raise HostRefused(
                f"the control API does not answer to the host name {hostname[:80]!r}",
                hint="use the address it listens on, or add the name to ISOPOD_CONTROL_NAMES",
            )
        if path in _OPEN_PATHS:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Unauthorized("the request carries no token")
        if not hmac.compare_digest(token.strip(), self._token):
            raise Unauthorized("the token is not this node's")


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # noqa: S104
