"""Headers in and out: hop-by-hop removed, forwarding headers ours, request ids.

Sources: RFC 9110 7.6.1 (hop-by-hop), RFC 7239's older siblings X-Forwarded-*. Header names with an
underscore are dropped: as `HTTP_X_Y` they could not be told from `X-Y`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from isopod.errors import BadRequest

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_OURS = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-real-ip",
        b"forwarded",
        b"x-request-id",
        # httpoxy: would become HTTP_PROXY in a CGI-like environment.
        b"proxy",
        b"expect",
    }
)
# Set by a proxy alone: JavaScript apps are told to find the client's address there.
_A_PROXYS = frozenset({b"cf-connecting-ip"})
_FOR_APPS = b"x-isopod-"  # what we tell an app: that it is a job's request, or a warm-up
# All others are passed on, or are not, without a look at them.
_READ = HOP_BY_HOP | _OURS | _A_PROXYS | {b"host", b"content-length", b"accept", b"cookie"}
_OURS_OUT = frozenset({b"x-request-id", b"x-isopod-cpu-ms"})
# What follows a host's name reaches apps, which make URLs of it. Excluded are the characters that
# end a host in a URL or that none may hold (URL Standard, "forbidden host code point"), and quotes.
_HOST = re.compile(
    r'(?:\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f"#/:<>?@\[\\\]^|]+)(?::[0-9]{0,5})?', re.ASCII
)
_MAX_PORT = 65_535
_REQUEST_ID = re.compile(rb"[0-9A-Za-z._-]{1,128}")
_NONE: frozenset[bytes] = frozenset()
Headers = Iterable[tuple[bytes, bytes]]


# Not frozen: one is made for every request, and that would take longer.
@dataclass(slots=True)
class Incoming:
    """What the gateway read from a request's headers."""

    host: str
    request_id: str
    content_length: int | None
    has_body: bool
    accept: str
    passed: list[tuple[bytes, bytes]]  # of the client's
    ours: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """For the guest. Not made before it is asked for: a file needs none."""
        theirs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.passed]
        return (*theirs, *self.ours)


def read_incoming(
    headers: Headers,
    *,
    client: str,
    scheme: str,
    trusted: bool,
    http2: bool,
    known_id: str = "",
) -> Incoming:
    """`trusted`: the peer is a configured proxy, whose forwarding headers are believed.
    `known_id`: what another worker, which handed the request over, calls it already.

    Raises BadRequest for a request without one valid Host, or with a damaged Content-Length.
    """
    given = list(headers)
    host: str | None = None
    accept, length = "", None
    request_id = b""
    chunked = False
    cookies: list[bytes] = []
    passed: list[tuple[bytes, bytes]] = []
    forwarded: dict[bytes, bytes] = {}
    named = _named_by_connection(given)
    for name, value in given:
        if name not in _READ:
            if b"_" not in name and name not in named and not name.startswith(_FOR_APPS):
                passed.append((name, value))
            continue
        if name == b"host":
            # RFC 9112 3.2. Of HTTP/2, one may be what `:authority` was.
            if host is not None and not (http2 and host == value.decode("latin-1")):
                raise BadRequest("the request has more than one Host header")
            host = value.decode("latin-1")
            continue
        if name == b"content-length":
            known, length = length, _content_length(value)
            if known is not None and known != length:
                raise BadRequest("the request has more than one Content-Length")
            continue  # passed on once, below
        if name == b"transfer-encoding":
            # RFC 9112 6.1: chunked once, and last. Nobody here undoes another coding.
            if chunked or value.strip().lower() != b"chunked":
                raise BadRequest("the request has a Transfer-Encoding other than chunked")
            chunked = True
        elif name == b"cookie":
            cookies.append(value)
            continue
        elif name == b"accept":
            accept = value.decode("latin-1")
        if name in HOP_BY_HOP or name in named:
            continue
        if name in _OURS:
            if trusted:
                # A proxy may add a line of its own to the one it got (RFC 9110 5.3).
                before = forwarded.get(name)
                forwarded[name] = value if before is None else before + b", " + value
                if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                    request_id = value
            continue
        if name in _A_PROXYS and not trusted:
            continue
        passed.append((name, value))
    if cookies:
        # HTTP/2 sends them apart (RFC 9113 8.2.3); joined like other headers they would be others.
        passed.append((b"cookie", b"; ".join(cookies)))
    if not host:
        raise BadRequest("the request has no Host header")
    if not _HOST.fullmatch(host) or _port(host) > _MAX_PORT:
        raise BadRequest("the request's Host header is not a host name, or one and a port")
    if chunked:
        length = None  # RFC 9112 6.3: the chunks say how long it is, whatever else does
    ours = [] if length is None else [("content-length", str(length))]
    identity = known_id or request_id.decode() or os.urandom(8).hex()
    chain = forwarded.get(b"x-forwarded-for", b"").decode("latin-1")
    ours += [
        ("host", host),
        ("x-forwarded-for", f"{chain}, {client}" if chain else client),
        ("x-forwarded-proto", forwarded.get(b"x-forwarded-proto", b"").decode("latin-1") or scheme),
        ("x-forwarded-host", forwarded.get(b"x-forwarded-host", b"").decode("latin-1") or host),
        ("x-request-id", identity),
    ]
    return Incoming(
        host=host,
        request_id=identity,
        content_length=length,
        # HTTP/2 has no Transfer-Encoding: a body may come whenever no length says otherwise.
        has_body=chunked or bool(length) or (http2 and length is None),
        accept=accept,
        passed=passed,
        ours=tuple(ours),
    )


def _named_by_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that `Connection` makes hop-by-hop; never those that frame the message."""
    named: set[bytes] | None = None
    for name, value in headers:
        if name == b"connection":
            named = named or set()
            named.update(token.strip().lower() for token in value.split(b","))
    if named is None:
        return _NONE
    return frozenset(named - {b"host", b"content-length", b"content-type", b"cookie"})


def _content_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise BadRequest("the request's Content-Length is not a number")
    return int(value)


def outgoing(
    headers: list[tuple[bytes, bytes]], request_id: str, timing: str
) -> list[tuple[bytes, bytes]]:
    """A guest's response headers for the client, with ours."""
    named = _named_by_connection(headers)
    kept = [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name not in named and name not in _OURS_OUT
    ]
    kept.append((b"x-request-id", request_id.encode()))
    kept.append((b"server-timing", timing.encode()))
    return kept


def without_framing(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Of a response instead of a WebSocket: the HTTP server believes a length that it is told, and
    who comes next over the same connection would get the rest."""
    given = list(headers)
    hidden = HOP_BY_HOP | _named_by_connection(given) | {b"content-length"}
    return [(name, value) for name, value in given if name.lower() not in hidden]


def port_of(host_header: str, scheme: str) -> int:
    """The port a Host header names, or the scheme's."""
    port = _port(host_header)
    if 0 < port <= _MAX_PORT:
        return port
    return 443 if scheme == "https" else 80


def _port(host_header: str) -> int:
    """0 where it names none."""
    tail = host_header.rsplit("]", 1)[-1] if "[" in host_header else host_header
    _, colon, port = tail.rpartition(":")
    # isdigit alone holds for digits that int refuses, and int refuses thousands of digits.
    return int(port) if colon and port.isascii() and port.isdigit() and len(port) <= 5 else 0
