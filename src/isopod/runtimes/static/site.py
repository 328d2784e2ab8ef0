"""What a path of a site leads to. Pure; nothing here reads a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from isopod.errors import BadRequest
from isopod.runtimes.static.index import Index, SiteFile
from isopod.runtimes.static.redirects import MOVED, Rule

_HOME = "index.html"
_NOT_FOUND = "404.html"
_MAX_PATH = 8192
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNRESERVED = "-._~!$&'()*+,;=:@/"


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and the status it answers with."""

    file: SiteFile
    status: int = 200


@dataclass(frozen=True, slots=True)
class Moved:
    location: str
    status: int


Target = Found | Moved | None


def decode(path: str) -> str:
    """A request's path with its escapes undone, once. Raises BadRequest for what is no path of a
    file: damaged escapes, other bytes than UTF-8, control characters, "." and ".." as segments."""
    if len(path) > _MAX_PATH or not path.startswith("/"):
        raise BadRequest("the request's path is no path of a file")
    if "%" in path or not path.isascii():
        if _BAD_ESCAPE.search(path) or "%2f" in path.lower():
            raise BadRequest("the request's path holds an escape that names no file")
        try:
            path = unquote_to_bytes(path.encode("latin-1")).decode()
        except UnicodeDecodeError:
            raise BadRequest("the request's path is not UTF-8") from None
    if _CONTROL.search(path):
        raise BadRequest("the request's path holds a control character")
    if "/." in path and any(part in (".", "..") for part in path.split("/")):
        raise BadRequest("the request's path leads out of the site")
    return path


class Site:
    """One index, with its rules sorted for look-ups. `beside` an app it has no pages of its own
    for what is not there."""

    def __init__(self, index: Index, *, beside: bool = False) -> None:
        self.index = index
        self._beside = beside
        self._files = index.files
        self._forced = tuple(rule for rule in index.redirects if rule.force)

    def resolve(self, path: str, query: str = "") -> Target:
        """`path` is decoded. None: there is nothing, and no page that says so."""
        found = self._file(path)
        if found is not None and not self._forced:
            return Found(found)
        for rule in self.index.redirects:
            if found is not None and not rule.force:
                continue
            values = rule.pattern.match(path)
            if values is not None:
                return self._follow(rule, values, query)
        if found is not None:
            return Found(found)
        return self._folder(path, query) or (None if self._beside else self._fallback(path))

    def _file(self, path: str) -> SiteFile | None:
        name = path[1:]
        if not name or name.endswith("/"):
            return self._files.get(name + _HOME)
        return self._files.get(name) or self._files.get(f"{name}.html")

    def _folder(self, path: str, query: str) -> Moved | None:
        """A folder without its slash: relative links in its page would lead astray."""
        if path.endswith("/") or f"{path[1:]}/{_HOME}" not in self._files:
            return None
        location = quote(f"{path}/", safe=_UNRESERVED)
        return Moved(_with_query(location, query), 301)

    def _follow(self, rule: Rule, values: dict[str, str], query: str) -> Target:
        target = rule.target(values)
        if rule.status in MOVED:
            return Moved(_with_query(target, query), rule.status)
        found = self._file(target)
        return self._missing() if found is None else Found(found, rule.status)

    def _fallback(self, path: str) -> Found | None:
        """The one page of a single-page app, but not for what looks like a file: a script that is
        gone must not be a page with status 200."""
        if self.index.spa and "." not in path.rpartition("/")[2]:
            page = self._files.get(_HOME)
            if page is not None:
                return Found(page)
        return self._missing()

    def _missing(self) -> Found | None:
        page = self._files.get(_NOT_FOUND)
        return None if page is None else Found(page, 404)


def _with_query(location: str, query: str) -> str:
    """The request's query goes along, unless the target has its own."""
    if not query or "?" in location:
        return location
    before, mark, fragment = location.partition("#")
    return f"{before}?{query}{mark}{fragment}"
