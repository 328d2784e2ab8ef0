"""`_redirects`: FROM TO [STATUS[!]], one rule a line; the first that applies does.

The subset that Netlify and Cloudflare Pages agree on. A rule with `!` goes before a file of that
name, others only where there is none. What is not known is refused where it stands: a redirect that
is silently left out would be found out by visitors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from isopod.errors import ManifestInvalid
from isopod.runtimes.static.patterns import Pattern, fill, placeholders

FILE_NAME = "_redirects"
MOVED = frozenset({301, 302, 303, 307, 308})
# The two differ: Netlify's is 301, which browsers keep for good.
_DEFAULT_STATUS = 302
_MAX_RULES = 2000
_MAX_LINE = 2000
_MAX_PATTERNS = 200  # with placeholders: each is compared with every path that has no file


@dataclass(frozen=True, slots=True)
class Rule:
    pattern: Pattern
    to: str
    status: int  # one of MOVED, or 200 and 404: another file answers
    force: bool

    def to_json(self) -> list[Any]:
        return [self.pattern.text, self.to, self.status, self.force]

    @staticmethod
    def from_json(body: Sequence[Any]) -> Rule:
        return Rule(Pattern.parse(body[0]), str(body[1]), int(body[2]), bool(body[3]))

    def target(self, values: dict[str, str]) -> str:
        """Where it leads: a URL for a redirect, else a decoded path."""
        if self.status not in MOVED:
            return fill(self.to, values, escape=False)
        url = fill(self.to, values, escape=True)
        # "//host" would leave for a host that the visitor chose.
        return "/" + url.lstrip("/") if url.startswith("/") else url


def parse(text: str) -> list[Rule]:
    """Raises ManifestInvalid with the file and the line."""
    rules: list[Rule] = []
    patterns = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = _words(line)
        if not words:
            continue
        try:
            if len(line) > _MAX_LINE:
                raise ValueError(f"is longer than {_MAX_LINE:,} characters")
            rule = _rule(words)
        except ValueError as error:
            raise _invalid(number, str(error)) from error
        rules.append(rule)
        patterns += bool(rule.pattern.names)
        if len(rules) > _MAX_RULES or patterns > _MAX_PATTERNS:
            most = f"{_MAX_RULES:,} rules, {_MAX_PATTERNS} of them with '*' or placeholders"
            raise _invalid(number, f"there may be at most {most}")
    return rules


def _words(line: str) -> list[str]:
    words = line.split()
    for number, word in enumerate(words):
        if word.startswith("#"):
            return words[:number]
    return words


def _rule(words: list[str]) -> Rule:
    if len(words) < 2:
        raise ValueError(f"needs where it leads: {words[0]} /elsewhere 301")
    is_target = words[1].startswith("/") or "://" in words[1]
    if len(words) > 3 or (not is_target and "=" in words[1]):
        raise ValueError(
            "conditions and query parameters are not supported: FROM TO [STATUS] is all"
        )
    status, force = _status(words[2]) if len(words) == 3 else (_DEFAULT_STATUS, False)
    pattern = Pattern.parse(words[0])
    to = words[1]
    _check_target(to, status)
    unknown = [name for name in placeholders(_path_of(to)) if name not in pattern.names]
    if unknown:
        raise ValueError(f"{to!r} uses :{unknown[0]}, which {pattern.text!r} does not have")
    return Rule(pattern, to, status, force)


def _status(text: str) -> tuple[int, bool]:
    number, mark, rest = text.partition("!")
    if (
        rest
        or not number.isascii()
        or not number.isdigit()
        or int(number) not in {*MOVED, 200, 404}
    ):
        raise ValueError(f"status {text!r} is not one of 200, 301, 302, 303, 307, 308 and 404")
    return int(number), bool(mark)


def _check_target(to: str, status: int) -> None:
    if to.startswith("/"):
        if status not in MOVED and ("?" in to or "#" in to):
            raise ValueError(f"{to!r} must be a path alone: a file answers with status {status}")
        return
    scheme, _, rest = to.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise ValueError(f"{to!r} must be a path that starts with '/', or a URL with http or https")
    if status not in MOVED:
        raise ValueError(f"status {status} with a URL would be a proxy, which is not supported")
    try:
        parts = urlsplit(to)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{to!r} is no URL: {error}") from error
    if not host:
        raise ValueError(f"{to!r} must name its host, without placeholders")


def _path_of(to: str) -> str:
    """Without the scheme, the host and the port."""
    return to if to.startswith("/") else "/" + to.partition("://")[2].partition("/")[2]


def _invalid(line: int, why: str) -> ManifestInvalid:
    return ManifestInvalid(
        f"{FILE_NAME}, line {line}: {why}",
        hint="docs/static.md lists what is supported",
        details={"file": FILE_NAME, "line": line},
    )
