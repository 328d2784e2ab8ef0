"""The tables, as the migrations leave them. Times are seconds since the epoch."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

apps = Table(
    "apps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("live_version", Integer),  # NULL only inside the transaction that creates the app
    Column("source", Text, nullable=False),  # the folder it came from; "" when not told
)

builds = Table(
    "builds",
    metadata,
    Column("key", Text, primary_key=True),
    Column("package", Text, nullable=False),
    Column("runtimes", Text, nullable=False),  # digest of the runtimes it was built with
    Column("app_tree", Text, nullable=False),
    Column("site_tree", Text, nullable=False),
    Column("dependencies", Text, nullable=False),  # JSON [[name, version]...]
    Column("created_at", Float, nullable=False),
    Index("builds_by_package", "package", "runtimes"),
)

versions = Table(
    "versions",
    metadata,
    Column("app", Text, ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("input", Text, nullable=False),  # digest of the deploy request that made it
    Column("package", Text, nullable=False),
    Column("build_key", Text, nullable=False),
    Column("app_tree", Text, nullable=False),
    Column("site_tree", Text, nullable=False),
    Column("dependencies", Text, nullable=False),
    Column("spec", Text, nullable=False),  # JSON; holds env values
    Column("created_at", Float, nullable=False),
    Column("sha256", Text, nullable=False),  # of the other columns: see versions.py
    # NULL in the three: made before there were snapshots.
    Column("snapshot", Text),  # JSON
    Column("twin", Text),  # digest of the request without the app's name
    Column("shape", Text),  # digest of the request without the name and the values of env
    PrimaryKeyConstraint("app", "number"),
    UniqueConstraint("app", "digest"),
    Index("versions_by_input", "input"),
    # With the time: ten thousand twins are not sorted to find the newest.
    Index("versions_by_twin", "twin", "created_at"),
    Index("versions_by_shape", "shape", "created_at"),
)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    CheckConstraint("id = 1"),
)
