"""How often something may be done: a bucket that fills with time."""

from __future__ import annotations

import time


class Pace:
    """`per_s` a second, and `most` at once after a pause, with which it begins."""

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most = per_s, most
        self._left = most
        self._at = time.monotonic()

    def take(self) -> bool:
        if not self.has_one():
            return False
        self._left -= 1
        return True

    def has_one(self) -> bool:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left >= 1

    def wait_s(self) -> float:
        """Until there is one, after there was none."""
        return max(0.0, 1 - self._left) / self._per_s
