"""A version's snapshot, and what finds a version of another app that was made from the same.

The rows stay as they are: a column that is NULL is not part of a row's checksum.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for name in ("snapshot", "twin", "shape"):
        op.add_column("versions", sa.Column(name, sa.Text))
    op.create_index("versions_by_twin", "versions", ["twin", "created_at"])
    op.create_index("versions_by_shape", "versions", ["shape", "created_at"])
