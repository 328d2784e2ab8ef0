"""A token bucket: a rate that holds over time, with a burst that may pass at once."""

from __future__ import annotations


class TokenBucket:
    """Full at first. `now` is in seconds of any clock that does not go back; one that does adds
    nothing."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """`rate` in tokens per second; `burst` is the most that the bucket holds."""
        self.rate = rate
        self.burst = burst
        self._left = burst
        self._at = now

    def left(self, now: float) -> float:
        """Tokens in it now; below 0 when more was spent than there was."""
        if now > self._at:
            self._left = min(self.burst, self._left + (now - self._at) * self.rate)
            self._at = now
        return self._left

    def spend(self, tokens: float) -> None:
        """As of the last `left`. A debt is paid by waiting; it never exceeds one burst."""
        self._left = max(-self.burst, self._left - tokens)

    def wait_s(self, tokens: float) -> float:
        """Seconds until so many tokens will be in it, as of the last `left`."""
        return max(0.0, (tokens - self._left) / self.rate)
