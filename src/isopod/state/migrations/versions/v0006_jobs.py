"""Jobs: when each is due next, and what became of their runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("app", sa.Text, sa.ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("app", "name"),
    )
    op.create_index("jobs_by_time", "jobs", ["next_at"])
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("app", sa.Text, sa.ForeignKey("apps.name", ondelete="CASCADE"), nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("cpu_ms", sa.Float, nullable=False),
        sa.UniqueConstraint("app", "job", "due_at", "attempt"),
        sqlite_autoincrement=True,
    )
    op.create_index("job_runs_by_app", "job_runs", ["app", "id"])
    op.create_index("job_runs_under_way", "job_runs", ["ended_at"])
