"""Which encoding of a file a client gets: RFC 9110, section 12.5.3."""

from __future__ import annotations

import functools
import re

_QVALUE = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MAX_PARTS = 32


@functools.lru_cache(maxsize=512)
def choose(accepted: bytes, offered: tuple[str, ...]) -> str:
    """One of `offered`, or "" for the file as it is. `offered`: ours first among equals.

    A file as it is goes out also to who refuses that (`identity;q=0`) and accepts nothing else:
    an answer is better than none.
    """
    if not accepted or not offered:
        return ""
    said = _qualities(accepted.decode("latin-1"))
    others = said.get("*", 0.0)
    best, quality = "", said.get("identity", 0.0)
    for name in offered:
        found = said.get(name, others)
        if found > quality or (found == quality and found > 0 and not best):
            best, quality = name, found
    return best


def _qualities(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(",")[:_MAX_PARTS]:
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            parsed = _QVALUE.fullmatch(parameter)
            # Damaged: as if it had not been named.
            quality = float(parsed[1]) if parsed else 0.0
        name = name.lower()
        if name:
            found["gzip" if name == "x-gzip" else name] = quality
    return found
