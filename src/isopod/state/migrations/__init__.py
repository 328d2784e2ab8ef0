"""Alembic migrations, run by `open_state`; there is no alembic.ini."""
