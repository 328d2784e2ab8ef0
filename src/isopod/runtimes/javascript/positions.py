"""Where in an app's own files a position of its bundle is.

esbuild says it in a source map (tc39.es/ecma426). A build makes a table of it that a worker can
search without reading it whole: u32 count of names, u32 of each one's end, the names, and then
sorted records of four u32: line and column in the bundle, name, line there. Lines count from 1,
columns from 0.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

POSITIONS = "app.lines"  # beside the bundle
_RECORD = struct.Struct("<4I")
_WORD = struct.Struct("<I")
_MOST_AT_ONCE = 200  # 10 us each
_OPENING = 5  # what the table's opening costs, in those
_MOST = 1 << 31
_PLACE = re.compile(rb"(?<![\w/.\-])app\.js:(\d{1,8})(?::(\d{1,8}))?(?![\w:])")
_DIGITS = {
    ord(char): value
    for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}


def table(source_map: bytes, names: list[str]) -> bytes:
    """The table of a source map whose sources are called `names`. Raises ValueError."""
    encoded = [name.encode()[-250:] for name in names]
    ends, total = [], 0
    for name in encoded:
        total += len(name)
        ends.append(total)
    mappings = json.loads(source_map)["mappings"]
    records = b"".join(_RECORD.pack(*one) for one in _records(mappings, len(names)))
    head = b"".join(map(_WORD.pack, [len(encoded), *ends]))
    return head + b"".join(encoded) + records


def names_of(source_map: bytes, *, beside: Path, folder: Path) -> list[str]:
    """Its sources as the author knows them. `beside`: where the map was written; `folder`: the
    app's."""
    root = folder.resolve()
    found = []
    for source in json.loads(source_map)["sources"]:
        path = Path(os.path.normpath(beside.resolve() / str(source)))
        text = path.as_posix()
        _, modules, package = text.partition("node_modules/")
        if path.is_relative_to(root):
            found.append(path.relative_to(root).as_posix())
        elif modules:
            found.append(modules + package)
        else:
            found.append(path.name)
    return found


class Locating:
    """Positions in the bundle as those in the app's files, by the table of `site`; as they are
    where it says nothing, or when there were too many of them: a guest can write thousands at
    once."""

    def __init__(self, site: Path) -> None:
        self._site = site
        self._left = _MOST_AT_ONCE

    def __call__(self, text: bytes) -> bytes:
        if b"app.js:" not in text or self._left <= 0:
            return text
        self._left -= _OPENING
        with (
            contextlib.suppress(OSError, ValueError),
            (self._site / POSITIONS).open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data,
        ):
            count = max(1, self._left)
            text, found = _PLACE.subn(lambda one: _place(data, one) or one[0], text, count)
            self._left -= found
        return text


def _place(data: mmap.mmap, found: re.Match[bytes]) -> bytes:
    line, column = int(found[1]), max(0, int(found[2] or 1) - 1)
    try:
        (count,) = _WORD.unpack_from(data, 0)
        names_at = 4 + 4 * count
        (size,) = _WORD.unpack_from(data, names_at - 4) if count else (0,)
        start = names_at + size

        def key(index: int) -> tuple[int, int, int, int]:
            return _RECORD.unpack_from(data, start + index * _RECORD.size)

        records = range((len(data) - start) // _RECORD.size)
        after = bisect_right(records, (line, column), key=lambda index: key(index)[:2])
        nearest = [key(index) for index in (after - 1, after) if index in records]
        _, _, name, there = next(one for one in nearest if one[0] == line)
        (begin,) = _WORD.unpack_from(data, 4 * name) if name else (0,)
        (end,) = _WORD.unpack_from(data, 4 + 4 * name)
    except (struct.error, StopIteration):
        return b""
    return data[names_at + begin : names_at + end] + b":%d" % there


def _records(mappings: str, names: int) -> Iterator[tuple[int, int, int, int]]:
    """Where a line of the bundle begins to come from another place."""
    name = there = 0
    for number, line in enumerate(mappings.split(";"), 1):
        column = 0
        last: tuple[int, int] | None = None
        for segment in line.split(",") if line else ():
            values = _numbers(segment)
            column += values[0]
            if len(values) >= 4:
                name += values[1]
                there += values[2]
            if not (0 <= column < _MOST and 0 <= there < _MOST and 0 <= name < max(names, 1)):
                raise ValueError("the source map points to nothing")
            if len(values) >= 4 and (name, there) != last:
                last = (name, there)
                yield number, column, name, there + 1


def _numbers(segment: str) -> list[int]:
    """Base64 VLQ."""
    found = []
    value = shift = 0
    for char in segment.encode():
        digit = _DIGITS.get(char)
        if digit is None or shift > 30:
            raise ValueError("the source map is none")
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            found.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    if not found or shift:
        raise ValueError("the source map is none")
    return found
