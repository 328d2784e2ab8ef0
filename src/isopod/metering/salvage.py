"""What can still be read of a spool whose file was damaged.

Apart from the collector, which reads whole ones: here any statement may fail, and what lies before
and behind the damage is wanted all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from isopod.metering.rows import MAX_BATCH_BYTES

Key = tuple[str, int]
COLUMNS = (
    f"epoch, sequence, CASE WHEN typeof(body) = 'blob' AND length(body) <= {MAX_BATCH_BYTES}"
    " THEN body END, sha256"
)
# Keys that `spool` would write, and no others.
KEYS = (
    "typeof(epoch) = 'text' AND length(epoch) BETWEEN 1 AND 64 AND epoch NOT GLOB '*[^0-9a-f]*'"
    " AND typeof(sequence) = 'integer'"
)
_MOST_KEYS = 200_000  # from either end; a day's


def readable_keys(db: sqlite3.Connection) -> list[Key]:
    """From the first one to the damage, and from the last one back to it; in their order. Values
    are not read, so one that is damaged hides no other."""
    found: set[Key] = set()
    for order in ("ASC", "DESC"):
        query = (
            f"SELECT epoch, sequence FROM batches WHERE {KEYS}"  # noqa: S608
            f" ORDER BY epoch {order}, sequence {order} LIMIT {_MOST_KEYS}"
        )
        try:
            for key in db.execute(query):
                found.add(key)
        except sqlite3.DatabaseError:
            continue
    return sorted(found)


def readable_rows(
    db: sqlite3.Connection, keys: Sequence[Key], *, at_once: int
) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
    """`COLUMNS` of the keys whose values can be read, so many together, and how many cannot."""
    query = f"SELECT {COLUMNS} FROM batches WHERE epoch = ? AND sequence = ?"  # noqa: S608
    for start in range(0, len(keys), at_once):
        some = keys[start : start + at_once]
        found: list[tuple[Any, ...]] = []
        for key in some:
            try:
                found += db.execute(query, key).fetchall()
            except sqlite3.DatabaseError:
                continue
        yield found, len(some) - len(found)
