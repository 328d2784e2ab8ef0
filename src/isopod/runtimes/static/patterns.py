"""Paths with placeholders, as `_redirects` and `_headers` write them.

    /news/*            everything below /news/; the rest is `:splat`
    /blog/:year/:slug  one segment each

A path is compared segment by segment, in time that is linear in its length. `*` is the last
segment, and nothing else in a segment is special.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_PLACEHOLDER = re.compile(r":([A-Za-z]\w*)", re.ASCII)
_UNRESERVED = "-._~!$&'()+,;=:@/"
SPLAT = "splat"


@dataclass(frozen=True, slots=True)
class Pattern:
    text: str
    segments: tuple[str, ...]  # literal, ":name", or at the end "*"

    @staticmethod
    def parse(text: str) -> Pattern:
        """Raises ValueError: why it is none."""
        if not text.startswith("/"):
            raise ValueError(f"{text!r} must be a path that starts with '/'")
        segments = tuple(text[1:].split("/"))
        names = [SPLAT] if segments[-1] == "*" else []
        for number, segment in enumerate(segments):
            if segment == "*" and number == len(segments) - 1:
                continue
            if "*" in segment:
                raise ValueError(f"{text!r}: '*' is only known as the whole last segment")
            if segment.startswith(":"):
                if not _NAME.fullmatch(segment[1:]):
                    raise ValueError(f"{text!r}: {segment!r} is no placeholder's name")
                names.append(segment[1:])
        if len(set(names)) != len(names):
            raise ValueError(f"{text!r} names a placeholder twice")
        return Pattern(text, segments)

    @property
    def names(self) -> frozenset[str]:
        splat = {SPLAT} if self.segments[-1] == "*" else set()
        return frozenset({one[1:] for one in self.segments if one.startswith(":")} | splat)

    def match(self, path: str) -> dict[str, str] | None:
        """The placeholders' values in the decoded `path`."""
        given = path[1:].split("/")
        wanted = self.segments
        splat = wanted[-1] == "*"
        if len(given) < len(wanted) or (len(given) > len(wanted) and not splat):
            return None
        found: dict[str, str] = {}
        for number, segment in enumerate(wanted):
            if splat and number == len(wanted) - 1:
                found[SPLAT] = "/".join(given[number:])
            elif segment.startswith(":"):
                if not given[number]:
                    return None
                found[segment[1:]] = given[number]
            elif segment != given[number]:
                return None
        return found


def placeholders(template: str) -> list[str]:
    return _PLACEHOLDER.findall(template)


def fill(template: str, values: dict[str, str], *, escape: bool) -> str:
    """`template` with its placeholders' values. `escape`: they become part of a URL."""

    def value(found: re.Match[str]) -> str:
        text = values.get(found[1], found[0])
        return quote(text, safe=_UNRESERVED) if escape else text

    return _PLACEHOLDER.sub(value, template)
