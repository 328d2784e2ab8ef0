"""Requests as frames for a guest of any language, and responses parsed from one's.

The guest is hostile: everything parsed here is checked. The protocol around them is each runtime's
own; Python's is described in `python/guest/isopod_frames.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from isopod.errors import (
    AppFailedToStart,
    AppSyntaxError,
    BadRequest,
    CommandFailed,
    EntrypointNotCallable,
    EntrypointNotFound,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.runtimes.guest import GuestRequest, GuestResponse, SocketAccepted

MAX_HEADERS = 200
MAX_HEAD_BYTES = 64 << 10
MAX_SUMMARY = 500  # characters of what an app says of an error
_MAX_TRACEBACK = 64 << 10

_BOOT_ERRORS: dict[str, type[IsopodError]] = {
    "not_found": EntrypointNotFound,
    "not_callable": EntrypointNotCallable,
    "syntax": AppSyntaxError,
    "memory": MemoryLimitExceeded,
    "command": CommandFailed,
}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 5.5: no control bytes but tab
_STATUS = re.compile(rb"([1-5][0-9][0-9])( .*)?", re.DOTALL)


def request_frame(request: GuestRequest) -> bytes:
    """Raises BadRequest when a part would break the frame's lines."""
    lines = [
        request.method,
        request.path,
        request.query,
        request.protocol,
        request.scheme,
        request.host,
        str(request.port),
        request.client,
        "1" if request.has_body else "",
    ]
    lines += [f"{name}:{value}" for name, value in request.headers]
    if request.attachment is not None:
        lines.append(f":{request.attachment.hex()}")
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1:
        raise BadRequest("the request holds a line break where none may be")
    return text.encode("latin-1", "replace")


def parse_response(frame: bytes, *, more: bool, at: int = 1) -> GuestResponse:
    """An S or H frame: the operation, and from `at` u32 length of the head, head, body."""
    start = at + 4
    if len(frame) < start:
        raise GuestProtocolError("the guest sent a response frame without a head")
    size = int.from_bytes(frame[at:start], "little")
    if size > MAX_HEAD_BYTES:
        raise GuestProtocolError(f"the guest sent {size} bytes of headers")
    if start + size > len(frame):
        raise GuestProtocolError("the guest sent a response head longer than its frame")
    status_line, *lines = frame[start : start + size].split(b"\n")
    matched = _STATUS.fullmatch(status_line)
    if not matched:
        raise GuestProtocolError(f"the guest sent the status {_shown(status_line)}")
    status = int(matched[1])
    if status < 200:
        raise GuestProtocolError(f"the guest sent the interim status {status}")
    if len(lines) > MAX_HEADERS:
        raise GuestProtocolError(f"the guest sent {len(lines)} headers")
    headers = [_header(line) for line in lines]
    body = frame[start + size :]
    length = _declared_length(headers)
    # The app said how long the body is, and here it is: the client need not wait for what the
    # app still does afterwards.
    return GuestResponse(status, headers, body, more and length != len(body), length)


def parse_accept(subprotocol: bytes, lines: list[bytes]) -> SocketAccepted:
    """Of an A item: how the app takes a WebSocket."""
    if subprotocol and not _TOKEN.fullmatch(subprotocol):
        raise GuestProtocolError(f"the guest sent the subprotocol {_shown(subprotocol)}")
    if len(lines) > MAX_HEADERS or sum(map(len, lines)) > MAX_HEAD_BYTES:
        raise GuestProtocolError(f"the guest sent {len(lines)} headers")
    return SocketAccepted(subprotocol.decode(), tuple(_header(line) for line in lines))


def parse_report(data: bytes) -> dict[str, Any]:
    """What a guest says of itself, as JSON."""
    try:
        report = json.loads(data)
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        raise GuestProtocolError("the guest sent a report that is not JSON")
    return report


def boot_error(data: bytes) -> IsopodError:
    """Why an app did not start: a line of kind, a line of summary, a traceback."""
    kind, _, rest = data.decode("utf-8", "replace").partition("\n")
    summary, _, traceback = rest.partition("\n")
    # Its end says what went wrong.
    details = {"traceback": traceback[-_MAX_TRACEBACK:]} if traceback else {}
    return _BOOT_ERRORS.get(kind, AppFailedToStart)(
        summary[:MAX_SUMMARY] or "the app failed to start", details=details
    )


def _declared_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return None
    value = lengths.pop()
    if lengths or not value.isdigit() or len(value) > 18:
        raise GuestProtocolError("the app sent a Content-Length that is not one number")
    return int(value)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise GuestProtocolError(f"the guest sent the header name {_shown(name)}")
    value = value.strip(b" \t")
    if _BAD_VALUE.search(value):
        raise GuestProtocolError(f"the guest sent a control byte in header {_shown(name)}")
    return name.lower(), value


def _shown(data: bytes) -> str:
    return repr(data[:80].decode("latin-1"))
