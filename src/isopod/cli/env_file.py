"""Files of `NAME=value` lines, as .env files are: for values that belong on no command line.

Read as text, never as a shell would: nothing is expanded.
"""

from __future__ import annotations

import re
from pathlib import Path

from isopod.errors import UsageError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
# No other: str.splitlines ends lines at characters that a password may hold.
_LINE_END = re.compile(r"\r\n|\n|\r")
_MAX_BYTES = 1 << 20
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read(path: Path) -> dict[str, str]:
    """The variables of a file; the last of a name counts. UsageError with the line's number, and
    never its text."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as bad:
        raise UsageError(f"cannot read {str(path)!r}: {bad.strerror}") from bad
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{str(path)!r} is larger than {_MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{str(path)!r} is no UTF-8 text") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> dict[str, str]:
    """`name` is the file's, for errors."""
    found: dict[str, str] = {}
    lines = _LINE_END.split(text)
    at = 0
    while at < len(lines):
        # What is at the end of a line may be inside of quotes.
        line, number = lines[at].lstrip(), at + 1
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(
                f"{name}, line {number}: not NAME=value", hint="a comment begins with '#'"
            )
        key, value = match[1], match[2]
        quote = value[:1]
        if quote not in ("'", '"'):
            found[key] = re.split(r"\s+#", value, maxsplit=1)[0].rstrip()
            continue
        # In quotes it may go on over several lines, as keys in PEM do.
        while (end := _end(value, quote)) is None:
            if at == len(lines):
                raise UsageError(f"{name}, line {number}: the value of {key!r} has no end quote")
            value += "\n" + lines[at]
            at += 1
        rest = value[end + 1 :].strip()
        if rest and not rest.startswith("#"):
            raise UsageError(f"{name}, line {number}: text after the value of {key!r}")
        found[key] = value[1:end] if quote == "'" else _unescaped(value[1:end])
    return found


def _end(value: str, quote: str) -> int | None:
    """Where the value ends that begins with `quote`."""
    at = 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text, flags=re.DOTALL)
