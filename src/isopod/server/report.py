"""What the supervisor tells the person who started it."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """The command line's side of `isopod up`."""

    def say(self, text: str) -> None:
        """One line, at once."""

    def progress(self, fraction: float, text: str) -> None:
        """Preparing goes on: 0.0 to 1.0. Many calls, one bar."""

    def progress_done(self) -> None: ...
