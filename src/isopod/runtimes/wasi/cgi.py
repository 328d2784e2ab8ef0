"""CGI/1.1 (RFC 3875): a request as an environment, and a response from what a program writes. Pure.

What the RFC leaves to the server: headers whose names are not letters, digits and '-' are left
out, since as `HTTP_X_Y` they could not be told from others. Nothing is translated and nobody known
by the gateway, so there is no `PATH_TRANSLATED`, `REMOTE_USER`, `REMOTE_IDENT`, `AUTH_TYPE`. A
`Location` that is a path is a redirect for the client, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from isopod.errors import BadRequest, GuestProtocolError
from isopod.runtimes.frames import MAX_HEAD_BYTES, parse_response
from isopod.runtimes.guest import GuestRequest, GuestResponse

_NAME = re.compile(r"[a-z0-9-]+")
# Content headers have variables of their own; `Proxy` would be HTTP_PROXY, which clients of many
# libraries believe (httpoxy).
_NOT_PASSED = frozenset({"content-length", "content-type", "proxy"})
_END = re.compile(rb"\n\r?\n")
_LIKE_A_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
_STATUS = re.compile(rb"[1-5][0-9][0-9]( .*)?")
_MAX_SHOWN = 80
HINT = "a response begins with header lines, such as Content-Type: text/plain, and an empty line"


def environment(request: GuestRequest, own: Mapping[str, str]) -> dict[str, str]:
    """`own`: the app's settings, which CGI's variables go over. Raises BadRequest."""
    path = unquote_to_bytes(request.path)
    query = f"?{request.query}" if request.query else ""
    found = {
        **own,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "isopod",
        "SERVER_NAME": _host_name(request.host),
        "SERVER_PORT": str(request.port),
        # RFC 3875 4.1.16: "HTTP/" and a version with a dot.
        "SERVER_PROTOCOL": "HTTP/2.0" if request.protocol == "HTTP/2" else request.protocol,
        "REQUEST_METHOD": request.method,
        "REQUEST_SCHEME": request.scheme,
        "REQUEST_URI": f"{request.path}{query}",
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("utf-8", "replace"),
        "QUERY_STRING": request.query,
        "REMOTE_ADDR": request.client,
        "REMOTE_HOST": request.client,
    }
    if request.scheme == "https":
        found["HTTPS"] = "on"
    passed: dict[str, str] = {}
    for name, latin1 in request.headers:
        # An environment is UTF-8, as what clients mean by other bytes is as a rule.
        value = latin1.encode("latin-1", "replace").decode("utf-8", "replace")
        if name == "content-type":
            found["CONTENT_TYPE"] = value
        elif name == "content-length":
            found["CONTENT_LENGTH"] = value
        elif name not in _NOT_PASSED and _NAME.fullmatch(name):
            key = "HTTP_" + name.upper().replace("-", "_")
            before = passed.get(key)
            between = "; " if name == "cookie" else ", "
            passed[key] = value if before is None else f"{before}{between}{value}"
    found.update(passed)
    if b"\0" in path or any("\0" in value for value in found.values()):
        raise BadRequest("the request holds a NUL, which no environment can")
    return found


def head_end(written: bytes | bytearray, looked_at: int = 0) -> int:
    """Where the body begins; 0 while the head is not whole. `looked_at`: how much of it the last
    call saw, of a program that writes byte by byte. Raises GuestProtocolError as soon as it can be
    no head."""
    if written[:1] == b"\n" or written[:2] == b"\r\n":
        raise GuestProtocolError("the program wrote an empty line before any header", hint=HINT)
    found = _END.search(written, max(0, looked_at - 2), MAX_HEAD_BYTES)
    if found is not None:
        return found.end()
    newline = written.find(b"\n", looked_at)
    if newline >= 0 and written.find(b"\n") == newline:
        _check_line(bytes(written[:newline]))
    if len(written) >= MAX_HEAD_BYTES:
        raise GuestProtocolError(
            f"the program wrote {MAX_HEAD_BYTES >> 10} KiB without an end of its headers", hint=HINT
        )
    return 0


def check_ended(written: bytes | bytearray) -> None:
    """Why there is no response, of a program that ended before its head was whole."""
    if not written:
        raise GuestProtocolError("the program ended without a response", hint=HINT)
    lines = bytes(written[:MAX_HEAD_BYTES]).split(b"\n")
    for line in lines[: max(1, len(lines) - 1)]:  # the last may be a part of one
        _check_line(line)
    raise GuestProtocolError(
        "the program ended in the middle of its headers: no empty line follows them", hint=HINT
    )


def parse_head(head: bytes, body: bytes, *, more: bool) -> GuestResponse:
    """`head`: up to and with the empty line. Raises GuestProtocolError."""
    status, location, lines = b"", False, []
    for line in head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n"):
        _check_line(line)
        name, _, value = line.partition(b":")
        if name.lower() != b"status":
            location = location or name.lower() == b"location"
            lines.append(line)
            continue
        if status:
            raise GuestProtocolError("the program wrote the header Status twice")
        status = value.strip(b" \t")
        if not _STATUS.fullmatch(status):
            raise GuestProtocolError(f"the program wrote the status {_shown(status)}")
    known = b"\n".join([(status or (b"302" if location else b"200"))[:3], *lines])
    return parse_response(len(known).to_bytes(4, "little") + known + body, more=more, at=0)


def _check_line(line: bytes) -> None:
    if not _LIKE_A_HEADER.match(line):
        raise GuestProtocolError(
            f"the program wrote {_shown(line)} where a header belongs", hint=HINT
        )


def _host_name(host: str) -> str:
    """Without its port (RFC 3875 4.1.14)."""
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _shown(line: bytes) -> str:
    return repr(line[:_MAX_SHOWN].decode("latin-1"))
