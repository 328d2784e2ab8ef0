"""Usage: meter (in memory) -> spool (SQLite, per node) -> ledger (idempotent) -> roll-ups, bill."""
