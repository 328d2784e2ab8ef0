"""Volumes: folders of a tenant that outlive instances, and which app mounts each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "volumes",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size_mib", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("app", sa.Text),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    op.create_index("volumes_by_app", "volumes", ["app"])
