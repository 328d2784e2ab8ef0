"""What every request passes first: its id, its Host header, where it was sent from, its token.

The Host check stops a web page that points its own name at 127.0.0.1 (DNS rebinding); the Origin
check stops one that sends a request from the browser of somebody who may. Tokens are compared in
constant time, and wrong ones are bounded. Plain ASGI, so that streams pass untouched.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isopod.api.attempts import Attempts
from isopod.api.errors import respond
from isopod.control.node import Node
from isopod.control.tokens import find_principal, operator_for, token_id_of
from isopod.errors import Forbidden, HostRefused, IsopodError, Unauthorized
from isopod.model.principal import OPERATOR, Principal

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN_PATHS = frozenset({"/v1/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_READS = frozenset({"GET", "HEAD"})

Headers = Mapping[bytes, bytes]


class Guard:
    """Wraps the API; refuses before anything of it runs."""

    def __init__(self, app: ASGIApp, *, token: str, node: Node, attempts: Attempts) -> None:
        self._app = app
        self._token = token.encode()
        self._node = node
        self._attempts = attempts
        settings = node.settings
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
            self._check_host(headers)
            _check_origin(headers)
            if scope["path"] not in _OPEN_PATHS:
                who = await self._principal(scope, headers)
                self._attempts.asked(who, changes=scope["method"] not in _READS)
                scope["state"]["principal"] = who
        except IsopodError as error:
            await respond(error, request_id)(scope, receive, send_with_id)
            return
        await self._app(scope, receive, send_with_id)

    def _check_host(self, headers: Headers) -> None:
        hostname = _hostname(headers.get(b"host", b"").decode("latin-1"))
        if hostname not in self._names and not (self._any_address and _is_address(hostname)):
            raise HostRefused(
                f"the control API does not answer to the host name {hostname[:80]!r}",
                hint="use the address it listens on, or add the name to ISOPOD_CONTROL_NAMES",
            )

    async def _principal(self, scope: Scope, headers: Headers) -> Principal:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given.strip():
            raise Unauthorized("the request carries no token")
        token = given.strip()
        address = str((scope.get("client") or ("", 0))[0])
        asked = headers.get(b"x-isopod-tenant")
        asked_for = None if asked is None else asked.decode("latin-1")
        # Looked at even when the address has sent too many wrong ones: nobody guesses 256 bits,
        # but anybody could lock the operator out.
        if hmac.compare_digest(token, self._token):
            operator = replace(OPERATOR, address=address)
            if asked_for is None or asked_for == operator.tenant:
                return operator
            return await asyncio.to_thread(operator_for, asked_for, operator, node=self._node)
        text = token.decode("latin-1")
        token_id = token_id_of(text)
        self._attempts.check(address, token_id)
        # In a thread: a database that is busy must not hold up every other caller.
        who = await asyncio.to_thread(
            find_principal, text, asked_for=asked_for, address=address, node=self._node
        )
        if who is None:
            self._attempts.failed(address, token_id)
            raise Unauthorized("the token is not of this node, has expired or was revoked")
        return who


def _check_origin(headers: Headers) -> None:
    """Our clients are no web pages, and our own pages are of the same origin."""
    site = headers.get(b"sec-fetch-site")
    origin = headers.get(b"origin")
    alien = site is not None and site not in (b"same-origin", b"none")
    if origin is not None:
        alien |= urlsplit(origin).netloc.lower() != headers.get(b"host", b"").lower()
    if alien:
        raise Forbidden(
            "the request was sent by a web page of another origin",
            hint="the control API is not for other sites' pages, whatever token they send",
        )


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
