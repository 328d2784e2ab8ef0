"""Tenants: whose an app, a build and a package is; members, tokens and the audit log.

What there was belongs to tenant `default`. Table `apps` is not made anew: dropping it would take
every version with it (ON DELETE CASCADE).
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _tenants()
    _apps()
    _builds_and_packages()
    _members_and_tokens()
    _audit()


def _tenants() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("quota", sa.Text, nullable=False),
        sa.Column("cordon", sa.Text, nullable=False),
        sa.Column("suspended", sa.Boolean, nullable=False),
        sa.Column("deleted_at", sa.Float),
    )
    default = {"name": "default", "created_at": time.time(), "quota": "{}", "cordon": "shared"}
    op.bulk_insert(tenants, [default | {"suspended": False}])


def _apps() -> None:
    op.add_column("apps", sa.Column("tenant", sa.Text, nullable=False, server_default="default"))
    op.add_column("apps", sa.Column("short", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE apps SET short = name")
    op.create_index("apps_by_short", "apps", ["tenant", "short"], unique=True)
    op.create_table(
        "freed_labels",
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("freed_at", sa.Float, nullable=False),
    )


def _builds_and_packages() -> None:
    columns = "key, package, runtimes, app_tree, site_tree, dependencies, created_at"
    op.drop_index("builds_by_package")
    op.rename_table("builds", "builds_of_nobody")
    op.create_table(
        "builds",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("package", sa.Text, nullable=False),
        sa.Column("runtimes", sa.Text, nullable=False),
        sa.Column("app_tree", sa.Text, nullable=False),
        sa.Column("site_tree", sa.Text, nullable=False),
        sa.Column("dependencies", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key"),
    )
    op.execute(
        f"INSERT INTO builds (tenant, {columns}) "  # noqa: S608  constants
        f"SELECT 'default', {columns} FROM builds_of_nobody"
    )
    op.drop_table("builds_of_nobody")
    op.create_index("builds_by_package", "builds", ["tenant", "package", "runtimes"])
    op.create_table(
        "packages",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest"),
    )
    op.execute(
        "INSERT INTO packages SELECT 'default', package, min(created_at) FROM versions "
        "GROUP BY package"
    )


def _members_and_tokens() -> None:
    op.create_table(
        "members",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("last_used_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_index("tokens_by_tenant", "tokens", ["tenant", "created_at"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_tenant", "audit", ["tenant", "id"])
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
