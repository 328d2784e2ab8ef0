"""Immutable bytes by sha256, and the folders that are packed into them."""
