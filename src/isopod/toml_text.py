"""TOML as people write it: an error says its line, which tomllib tells only of bad syntax.

Shared by isopod.toml and isopod-node.toml; which keys there are and what they hold is theirs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any


class TomlInvalid(ValueError):
    """Not TOML. `line` counts from 1; 0: it cannot be told."""

    def __init__(self, why: str, *, line: int = 0) -> None:
        super().__init__(why)
        self.why, self.line = why, line


def decode(data: bytes) -> str:
    """TomlInvalid when it is not UTF-8; a byte order mark is no fault."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TomlInvalid("not UTF-8", line=data[: error.start].count(b"\n") + 1) from error


def parse(text: str, *, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """TomlInvalid with the line of what is wrong."""
    try:
        return tomllib.loads(text, parse_float=parse_float)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        # Without a position it is at the end of the document.
        line = int(found[1]) if found else text.count("\n") + 1
        why = re.sub(r" \(at [^)]*\)$", "", str(error))
        raise TomlInvalid(f"{why[:1].lower()}{why[1:]}", line=line) from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise TomlInvalid(f"cannot be read: {error}") from error


def line_of(text: str, section: str, key: str, entry: int = 0) -> int:
    """The line that holds the key, as well as a look at the lines can tell; 0 if not.

    A key may be dotted (`scaling.queue = 1`) or in an inline table (`app = {name = "x"}`): then
    the line that starts the section is given. Section "" is for a section's own line. `entry`: in
    which one of the tables [[section]], from 0.
    """
    wanted = f"{section}.{key}" if section else key
    current = ""
    section_line = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]#]+?)\s*\]", line):
            current = _bare(header[1])
            if entry and current == (section or key):
                entry -= 1
                current = ""
                continue
            if current == wanted or current.startswith(f"{wanted}."):
                return number
            if current == section:
                section_line = section_line or number
            continue
        if not (pair := re.match(r"\s*([^=#]+?)\s*=", line)):
            continue
        left = _bare(pair[1])
        full = f"{current}.{left}" if current else left
        if full == wanted or full.startswith(f"{wanted}."):
            return number
        if section and full == section:
            section_line = section_line or number
    return section_line


def _bare(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def shown(value: Any) -> str:
    """A value for a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
