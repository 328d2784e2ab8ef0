"""`Range: bytes=...`: RFC 9110, section 14."""

from __future__ import annotations

import re

_SPEC = re.compile(rb"([0-9]{1,18})?-([0-9]{1,18})?")
# A client that asks for more pieces than this gets the whole: each costs a head of its own.
_MAX_RANGES = 16

Span = tuple[int, int]  # first, and one past the last


def parse(header: bytes, size: int) -> list[Span] | None:
    """The spans of `size` bytes in the order they were asked for, those that touch made one. []
    when none can be had (416); None when the header is to be ignored."""
    unit, equals, rest = header.partition(b"=")
    if unit.strip().lower() != b"bytes" or not equals:
        return None
    pieces = [piece.strip() for piece in rest.split(b",") if piece.strip()]
    if not pieces or len(pieces) > _MAX_RANGES:
        return None
    spans: list[Span] = []
    for piece in pieces:
        found = _SPEC.fullmatch(piece)
        if found is None or (found[1] is None and found[2] is None):
            return None
        if found[1] is None:  # the last so many
            span = (max(0, size - int(found[2])), size)
        else:
            first = int(found[1])
            last = size - 1 if found[2] is None else int(found[2])
            if last < first and found[2] is not None:
                return None
            span = (first, min(last, size - 1) + 1)
        if span[0] < span[1]:
            spans.append(span)
    return _joined(spans)


def _joined(spans: list[Span]) -> list[Span]:
    """Overlapping ones would send bytes twice (section 15.3.7.2)."""
    done: list[Span] = []
    for first, end in spans:
        for at, (other, other_end) in enumerate(done):
            if first <= other_end and other <= end:
                done[at] = (min(first, other), max(end, other_end))
                break
        else:
            done.append((first, end))
    return done if len(done) == len(spans) else _joined(done)
