"""The tables, as the migrations leave them. Times are seconds since the epoch."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
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
    Column("name", Text, primary_key=True),  # the label: what the node knows it by
    Column("created_at", Float, nullable=False),
    Column("live_version", Integer),  # NULL only inside the transaction that creates the app
    Column("source", Text, nullable=False),  # the folder it came from; "" when not told
    Column("tenant", Text, nullable=False, server_default="default"),
    Column("short", Text, nullable=False, server_default=""),  # its name within the tenant
    Index("apps_by_short", "tenant", "short", unique=True),
)

# Labels whose app was deleted: for a while nobody else gets them.
freed_labels = Table(
    "freed_labels",
    metadata,
    Column("label", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("freed_at", Float, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("package", Text, nullable=False),
    Column("runtimes", Text, nullable=False),  # digest of the runtimes it was built with
    Column("app_tree", Text, nullable=False),
    Column("site_tree", Text, nullable=False),
    Column("dependencies", Text, nullable=False),  # JSON [[name, version]...]
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "key"),
    Index("builds_by_package", "tenant", "package", "runtimes"),
)

# Who uploaded which package: the blob is stored once, but is there only for those who sent it.
packages = Table(
    "packages",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "digest"),
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("quota", Text, nullable=False),  # JSON
    Column("cordon", Text, nullable=False),
    Column("suspended", Boolean, nullable=False),
    Column("egress", Text),  # JSON list of rules; NULL: no bound
    Column("deleted_at", Float),  # the row stays: its name is never given again
)

# Of apps, by their names within the tenant: they may be set before the first deploy.
secrets = Table(
    "secrets",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sealed", Text, nullable=False),  # see isopod.sealing; the key is not in here
    Column("changed_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "app", "name"),
)

members = Table(
    "members",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "name"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),  # the part of the token that is no secret
    Column("tenant", Text, nullable=False),
    Column("member", Text, nullable=False),
    Column("sha256", Text, nullable=False),  # of the secret part
    Column("scopes", Text, nullable=False),  # separated by spaces
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),  # NULL: never
    Column("last_used_at", Float),  # to the minute
    Column("revoked_at", Float),
    Index("tokens_by_tenant", "tenant", "created_at"),
)

# Append-only: the migration made triggers that refuse changes.
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("tenant", Text, nullable=False),  # whose log it is in
    Column("actor", Text, nullable=False),  # the member's name, or "operator"
    Column("token_id", Text, nullable=False),  # "" for the node's own token
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),  # "app.deploy"
    Column("target", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # "ok", or the error's code
    Column("details", Text, nullable=False),  # JSON object
    Index("audit_by_tenant", "tenant", "id"),
    sqlite_autoincrement=True,  # a number is never given again
)

# `app` is the label of the app whose live version mounts it: one at a time.
volumes = Table(
    "volumes",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("size_mib", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("app", Text),
    PrimaryKeyConstraint("tenant", "name"),
    Index("volumes_by_app", "app"),
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

# When each job of a live version is due next.
jobs = Table(
    "jobs",
    metadata,
    Column("app", Text, ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("next_at", Float, nullable=False),
    PrimaryKeyConstraint("app", "name"),
    Index("jobs_by_time", "next_at"),
)

# Its rows are claims as well: who adds one for a time and an attempt runs it, and nobody else.
job_runs = Table(
    "job_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("app", Text, ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
    Column("job", Text, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("trigger", Text, nullable=False),  # "schedule", "retry" or "hand"
    Column("version", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),  # NULL: under way
    Column("outcome", Text, nullable=False),  # "running", "ok", "missed", or an error's code
    Column("message", Text, nullable=False),
    Column("status", Integer, nullable=False),  # of the answer; 0: there was none
    Column("request_id", Text, nullable=False),
    Column("cpu_ms", Float, nullable=False),
    UniqueConstraint("app", "job", "due_at", "attempt"),
    Index("job_runs_by_app", "app", "id"),
    Index("job_runs_under_way", "ended_at"),
    sqlite_autoincrement=True,
)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    CheckConstraint("id = 1"),
)
