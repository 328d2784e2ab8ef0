"""Apps, versions and builds, kept: SQLAlchemy Core on SQLite, migrated by Alembic."""
