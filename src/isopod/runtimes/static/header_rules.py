"""`_headers`: a path, and below it, indented, the headers that its answers get.

Every rule that matches applies, in order; a name that comes twice is one header with both values.
They go over ours, but for those that frame the answer or follow from the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from isopod.errors import ManifestInvalid
from isopod.runtimes.static.patterns import Pattern

FILE_NAME = "_headers"
Header = tuple[bytes, bytes]
_MAX_RULES = 100
_MAX_HEADERS = 500
_MAX_LINE = 2000
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[ -~\t]*")
_NOT_TO_BE_SET = frozenset(
    {
        *("accept-ranges", "age", "allow", "connection", "content-encoding", "content-length"),
        *("content-range", "date", "etag", "keep-alive", "last-modified", "location"),
        *("proxy-authenticate", "server", "server-timing", "te", "trailer", "transfer-encoding"),
        *("upgrade", "x-isopod-cpu-ms", "x-isopod-error", "x-request-id"),
    }
)
_NEVER_JOINED = frozenset({b"set-cookie"})  # RFC 9110, section 5.3


@dataclass(frozen=True, slots=True)
class HeaderRule:
    pattern: Pattern
    headers: tuple[Header, ...]

    def to_json(self) -> list[Any]:
        return [self.pattern.text, [[n.decode(), v.decode()] for n, v in self.headers]]

    @staticmethod
    def from_json(body: Sequence[Any]) -> HeaderRule:
        headers = tuple((str(n).encode(), str(v).encode()) for n, v in body[1])
        return HeaderRule(Pattern.parse(body[0]), headers)


def parse(text: str, *, shown: str = "") -> list[HeaderRule]:
    """Raises ManifestInvalid with the file, in the folder `shown`, and the line."""
    rules: list[HeaderRule] = []
    headers = 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            if len(line) > _MAX_LINE:
                raise ValueError(f"is longer than {_MAX_LINE:,} characters")
            if line[0] not in " \t":
                rules.append(HeaderRule(Pattern.parse(stripped), ()))
            else:
                if not rules:
                    raise ValueError("a header needs a path above it, which is not indented")
                last = rules[-1]
                rules[-1] = HeaderRule(last.pattern, (*last.headers, _header(stripped)))
                headers += 1
        except ValueError as error:
            raise _invalid(shown, number, str(error)) from error
        if len(rules) > _MAX_RULES or headers > _MAX_HEADERS:
            raise _invalid(
                shown, number, f"there may be at most {_MAX_RULES} paths and {_MAX_HEADERS} headers"
            )
    return rules


def apply(headers: Iterable[Header], rules: Iterable[HeaderRule], path: str) -> list[Header]:
    """`headers` of the answer to `path`, with what the rules say of it."""
    said: list[Header] = []
    for rule in rules:
        if rule.pattern.match(path) is None:
            continue
        for name, value in rule.headers:
            at = next((i for i, one in enumerate(said) if one[0] == name), None)
            if at is None or name in _NEVER_JOINED:
                said.append((name, value))
            else:
                said[at] = (name, said[at][1] + b", " + value)
    if not said:
        return list(headers)
    replaced = {name for name, _ in said if name != b"vary"}
    return [*(one for one in headers if one[0] not in replaced), *said]


def _header(text: str) -> Header:
    name, colon, value = text.partition(":")
    name, value = name.strip().lower(), value.strip()
    if name.startswith("!"):
        raise ValueError("taking a header away with '!' is not supported")
    if not colon or not _NAME.fullmatch(name):
        raise ValueError(f"{text[:80]!r} must be written as Name: value")
    if name in _NOT_TO_BE_SET:
        raise ValueError(f"header {name!r} follows from the file or the connection")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"header {name!r} must have printable ASCII text as its value")
    return name.encode(), value.encode()


def _invalid(shown: str, line: int, why: str) -> ManifestInvalid:
    return ManifestInvalid(
        f"{shown}{FILE_NAME}, line {line}: {why}",
        hint="docs/static.md lists what is supported",
        details={"file": f"{shown}{FILE_NAME}", "line": line},
    )
