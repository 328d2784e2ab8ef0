"""Memory times the time that an instance held it, told apart by who is billed for it.

Between two looks the memory counts as it was at the first of them: a guest that grows pays from the
next look on.
"""

from __future__ import annotations


class HeldMemory:
    """Times are in nanoseconds of a clock that does not go back. Each moment is given out once."""

    __slots__ = ("_at", "_bytes", "_idle", "_request", "_serving", "served")

    def __init__(self, now_ns: int) -> None:
        self._at = now_ns
        self._bytes = 0
        self._idle = 0  # byte-nanoseconds
        self._request = 0
        self._serving = False
        self.served = 0  # byte-nanoseconds in requests, up to the last look or end

    def look(self, private_bytes: int, now_ns: int) -> None:
        spent = self._bytes * (now_ns - self._at)
        if self._serving:
            self._request += spent
            self.served += spent
        else:
            self._idle += spent
        self._at = now_ns
        self._bytes = max(0, private_bytes)  # a closed guest's may be less than nothing

    def begin(self, now_ns: int) -> None:
        """Requests have it from now on."""
        self._idle += self._bytes * (now_ns - self._at)
        self._at = now_ns
        self._serving = True

    def end(self, private_bytes: int, now_ns: int) -> int:
        """No request has it any more: their byte-milliseconds."""
        spent = self._bytes * (now_ns - self._at)
        held = self._request + spent
        self.served += spent
        self._request, self._serving, self._at = 0, False, now_ns
        self._bytes = max(0, private_bytes)
        return held // 1_000_000

    def take_idle(self) -> int:
        """Byte-milliseconds outside of requests, up to the last look, since this was last asked."""
        held, self._idle = self._idle, 0
        return held // 1_000_000
