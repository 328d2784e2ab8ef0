"""Apps, versions, builds and the revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("live_version", sa.Integer),
        sa.Column("source", sa.Text, nullable=False),
    )
    op.create_table(
        "builds",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("package", sa.Text, nullable=False),
        sa.Column("runtimes", sa.Text, nullable=False),
        sa.Column("app_tree", sa.Text, nullable=False),
        sa.Column("site_tree", sa.Text, nullable=False),
        sa.Column("dependencies", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("builds_by_package", "builds", ["package", "runtimes"])
    op.create_table(
        "versions",
        sa.Column("app", sa.Text, sa.ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("package", sa.Text, nullable=False),
        sa.Column("build_key", sa.Text, nullable=False),
        sa.Column("app_tree", sa.Text, nullable=False),
        sa.Column("site_tree", sa.Text, nullable=False),
        sa.Column("dependencies", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("app", "number"),
        sa.UniqueConstraint("app", "digest"),
    )
    op.create_index("versions_by_input", "versions", ["input"])
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.CheckConstraint("id = 1"),
    )
    op.bulk_insert(meta, [{"id": 1, "revision": 0}])
