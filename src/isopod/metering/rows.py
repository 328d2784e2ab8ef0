"""Usage records as they lie in a spool: one batch is a JSON array of arrays.

A worker writes them, and a worker runs strangers' code: what is read back is checked value by
value, and a record that no worker of ours would write is refused alone. Binding one blob holds the
GIL for less than binding each value does, which the requests being served notice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from isopod.errors import NameInvalid
from isopod.model.tenant import TenantName
from isopod.model.usage import UsageRecord

# A record as a plain tuple, its values in this order.
Row = tuple[Any, ...]
FIELDS = tuple(UsageRecord.__slots__)
AMOUNTS = tuple(FIELDS[FIELDS.index("cpu_ns") :])  # whole numbers, 0 or more
MAX_BATCH_BYTES = 32 << 20
# Far above anything real, far below what overflows.
MOST = 2**60

_KINDS = frozenset({"request", "start", "live"})
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_WORDS = re.compile(r"[0-9A-Za-z._-]{0,128}( [0-9A-Za-z._-]{0,128}){2}")
_OLDEST = 1_700_000_000.0  # before there was an isopod
_CLOCK_SKEW_S = 3600.0
_INT, _STR = frozenset({int}), frozenset({str})
_COUNT = len(AMOUNTS)
_row = attrgetter(*FIELDS)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a batch that was not taken. `index` counts from 0; -1 is the whole batch."""

    index: int
    reason: str


class Decoded(NamedTuple):
    """A batch's records that are sound, each with its index; what was refused; and how many of the
    sound ones, by tenant, had a time that cannot be and now have the collector's."""

    sound: list[tuple[int, Row]]
    refused: list[Refused]
    corrected: dict[str, int]


def encode(records: Iterable[UsageRecord]) -> bytes:
    return orjson.dumps([_row(record) for record in records])


def decode(body: bytes, *, now: float) -> Decoded:
    """Never raises. A clock that was wrong costs a record its time, not its amounts."""
    if len(body) > MAX_BATCH_BYTES:
        return _none(f"a batch of {len(body)} bytes")
    try:
        given = orjson.loads(body)
    except ValueError:  # orjson's own, and for depths and numbers that it does not read
        return _none("not JSON")
    if not isinstance(given, list):
        return _none("not a list")
    sound: list[tuple[int, Row]] = []
    refused: list[Refused] = []
    corrected: dict[str, int] = {}
    known: set[tuple[str, str]] = set()
    for index, row in enumerate(given):
        reason = _wrong(row, known)
        if reason:
            refused.append(Refused(index, reason))
            continue
        if not _OLDEST <= row[1] <= now + _CLOCK_SKEW_S:
            row[1] = max(now, _OLDEST)
            corrected[row[2]] = corrected.get(row[2], 0) + 1
        sound.append((index, tuple(row)))
    return Decoded(sound, refused, corrected)


def _none(reason: str) -> Decoded:
    return Decoded([], [Refused(-1, reason)], {})


def _wrong(row: Any, known: set[tuple[str, str]]) -> str:
    """Why a row cannot be a record; "" when it can. `known`: the (tenant, app) seen before."""
    if type(row) is not list or len(row) != len(FIELDS):
        return "not a record"
    kind, at, tenant, app, version, instance, request_id, outcome, status, cold, *amounts = row
    if type(kind) is not str or kind not in _KINDS:
        return "no such kind"
    if type(at) not in (float, int) or not math.isfinite(at):
        return "a time that cannot be"
    if set(map(type, (tenant, app, instance, request_id, outcome))) != _STR:
        return "a number for a text"
    if (tenant, app) not in known:
        if not (_is_tenant(tenant) and _LABEL.fullmatch(app)):
            return "no name of a tenant or app"
        known.add((tenant, app))
    if not _WORDS.fullmatch(f"{instance} {request_id} {outcome}"):
        return "an id that is none"
    if type(cold) is not bool:
        return "neither true nor false"
    amounts += (version, status)
    if len(amounts) != _COUNT + 2 or set(map(type, amounts)) != _INT:
        return "an amount that is no whole number"
    if min(amounts) < 0 or max(amounts) > MOST:
        return "an amount out of bounds"
    return ""


def _is_tenant(text: str) -> bool:
    try:
        TenantName.parse(text)
    except NameInvalid:
        return False
    return True
