"""Which lines of a log its reader wants, and how grave each is.

An app's logging library writes the level into its text in a form of its own, so it is found out
here, when a log is read: the worker, for which a flood of lines is costly, writes them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from isopod.model.log import LEVELS, Level

_CLOSE_TO_BEGIN = 120  # characters: a level stands near the begin of its line
_LONGEST_JSON = 64 << 10
_NAMES: Mapping[str, Level] = {
    **dict.fromkeys(("DEBUG", "TRACE"), "debug"),
    **dict.fromkeys(("INFO", "NOTICE"), "info"),
    **dict.fromkeys(("WARN", "WARNING"), "warning"),
    **dict.fromkeys(("ERROR", "CRITICAL", "FATAL"), "error"),
}
# In capitals, as logging libraries write it: "error" in a sentence says little.
_NAME = re.compile(r"\b(" + "|".join(_NAMES) + r")\b")
_PYTHON_WARNING = re.compile(r":\d+: \w*Warning: ")
_JSON_KEYS = ("level", "levelname", "severity")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`since`: seconds since the epoch. `level`: this grave, or graver; None and "": all."""

    since: float = 0.0
    level: Level | None = None
    request_id: str = ""

    def takes(self, line: Mapping[str, Any]) -> bool:
        """Of a line with its level."""
        if self.request_id and line.get("request_id") != self.request_id:
            return False
        if self.level is not None and LEVELS.index(line["level"]) < LEVELS.index(self.level):
            return False
        at = line.get("at")
        return not self.since or (isinstance(at, (int, float)) and at >= self.since)


def level_of(line: Mapping[str, Any]) -> Level:
    """What we said has its level. What an app printed: the level that its text names, else what
    is usual for the stream, a traceback's lines being what standard error is for."""
    said = line.get("level")
    if said in LEVELS:
        return said  # type: ignore[no-any-return]
    if line.get("stream") == "isopod":
        return "info"
    message = str(line.get("message", ""))
    named = _named(message)
    if named is not None:
        return named
    return "error" if line.get("stream") == "stderr" else "info"


def _named(message: str) -> Level | None:
    if message.startswith("{") and len(message) <= _LONGEST_JSON:
        named = _named_in_json(message)
        if named is not None:
            return named
    begin = message[:_CLOSE_TO_BEGIN]
    found = _NAME.search(begin)
    if found:
        return _NAMES[found[1]]
    return "warning" if _PYTHON_WARNING.search(begin) else None


def _named_in_json(message: str) -> Level | None:
    try:
        body = orjson.loads(message)
    except ValueError:
        return None
    names = (body.get(key) for key in _JSON_KEYS) if isinstance(body, dict) else ()
    return next(
        (_NAMES[n.upper()] for n in names if isinstance(n, str) and n.upper() in _NAMES), None
    )
