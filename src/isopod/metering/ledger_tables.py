"""The ledger's tables, and the statements that write to them.

Each is made where it is missing, so a ledger of an earlier isopod goes on being used.
"""

from __future__ import annotations

from isopod.metering.rollups import MOST, Sums
from isopod.metering.rows import FIELDS

SUMS = tuple(Sums.__slots__)
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS epochs (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    epoch TEXT NOT NULL,
    applied INTEGER NOT NULL, -- the highest sequence that was taken
    missing INTEGER NOT NULL, -- sequences below it that never came
    refused INTEGER NOT NULL, -- records that no worker of ours would write
    UNIQUE (node, epoch)
);
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epochs (id),
    sequence INTEGER NOT NULL,
    {", ".join(f"{name} NOT NULL" for name in FIELDS)}
);
CREATE INDEX IF NOT EXISTS records_of_app ON records (tenant, app);
CREATE TABLE IF NOT EXISTS sheets (
    since INTEGER PRIMARY KEY, -- the day from which it holds
    prices TEXT NOT NULL -- JSON
);
CREATE TABLE IF NOT EXISTS faults (
    day INTEGER NOT NULL,
    tenant TEXT NOT NULL, -- "" where it is not known whose they were
    missing INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    corrected INTEGER NOT NULL,
    PRIMARY KEY (day, tenant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollups (
    grain INTEGER NOT NULL,
    start INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    app TEXT NOT NULL,
    version INTEGER NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)},
    PRIMARY KEY (tenant, grain, start, app, version)
) WITHOUT ROWID;
"""
INSERT = f"INSERT INTO records VALUES (NULL, {', '.join('?' * (2 + len(FIELDS)))})"  # noqa: S608
_ADD = ", ".join(
    f"{name} = max({name}, excluded.{name})"
    if name == "peak_memory_bytes"
    else f"{name} = min({MOST}, {name} + excluded.{name})"
    for name in SUMS
)
UPSERT = f"""
INSERT INTO rollups VALUES ({", ".join("?" * (5 + len(SUMS)))})
ON CONFLICT DO UPDATE SET {_ADD}
"""  # noqa: S608
_MORE = ", ".join(
    f"{name} = min({2**53 - 1}, {name} + excluded.{name})"  # a statement holds no larger number
    for name in ("missing", "refused", "corrected")
)
FAULTS = f"INSERT INTO faults VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_MORE}"  # noqa: S608
