"""Whether a client has what it asks for: RFC 9110, section 13, in the order of 13.2.2."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from typing import Literal

Verdict = Literal["send", "not_modified", "failed"]


def check(headers: Mapping[bytes, bytes], *, etag: str, modified: int) -> Verdict:
    """`headers` of a GET or HEAD; `etag` with its quotes, strong."""
    if_match = headers.get(b"if-match")
    if if_match is not None:
        if not _names(if_match, etag, weakly=False):
            return "failed"
    else:
        since = _seconds(headers.get(b"if-unmodified-since"))
        if since is not None and modified > since:
            return "failed"
    if_none_match = headers.get(b"if-none-match")
    if if_none_match is not None:
        return "not_modified" if _names(if_none_match, etag, weakly=True) else "send"
    since = _seconds(headers.get(b"if-modified-since"))
    return "not_modified" if since is not None and modified <= since else "send"


def range_holds(if_range: bytes | None, *, etag: str, modified: int) -> bool:
    """Whether a part is still wanted (13.1.5): of what the client has the other part of."""
    if if_range is None:
        return True
    if if_range.lstrip().startswith((b'"', b"W/")):
        return if_range.strip().decode("latin-1") == etag
    return _seconds(if_range) == modified


def date(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def _names(header: bytes, etag: str, *, weakly: bool) -> bool:
    text = header.decode("latin-1").strip()
    if text == "*":
        return True
    for one in text.split(","):
        given = one.strip()
        if weakly:
            given = given.removeprefix("W/")
        if given == etag:
            return True
    return False


def _seconds(header: bytes | None) -> int | None:
    if header is None or len(header) > 64:
        return None
    try:
        found = email.utils.parsedate_tz(header.decode("latin-1"))
        return None if found is None else int(email.utils.mktime_tz(found))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
