"""Calls into a guest: code that its Ruby evaluates."""

from __future__ import annotations


def call(code: str) -> tuple[str, bytes]:
    """An evaluation of `code` in the guest."""
    return "isopod_eval", code.encode()


def quoted(text: str) -> str:
    """A literal of Ruby's that is `text`, whatever that holds."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
