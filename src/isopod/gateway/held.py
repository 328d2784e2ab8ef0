"""Memory times the time that an instance held it, told apart by who is billed for it.

Between two looks the memory counts as it was at the first of them: a guest that grows pays from the
next look on.
"""

from __future__ import annotations


class HeldMemory:
    """Times are in seconds of a clock that does not go back. Each moment is given out once."""

    __slots__ = ("_at", "_bytes", "_idle", "_request", "_serving")

    def __init__(self, now: float) -> None:
        self._at = now
        self._bytes = 0
        self._idle = 0.0  # byte-seconds
        self._request = 0.0
        self._serving = False

    def look(self, private_bytes: int, now: float) -> None:
        spent = self._bytes * (now - self._at)
        if self._serving:
            self._request += spent
        else:
            self._idle += spent
        self._at = now
        self._bytes = max(0, private_bytes)  # a closed guest's may be less than nothing

    def begin(self, now: float) -> None:
        """A request has it from now on."""
        self.look(self._bytes, now)
        self._serving = True

    def end(self, private_bytes: int, now: float) -> int:
        """The request is over: its byte-milliseconds."""
        self.look(private_bytes, now)
        held, self._request, self._serving = self._request, 0.0, False
        return int(held * 1e3)

    def take_idle(self) -> int:
        """Byte-milliseconds outside of requests, up to the last look, since this was last asked."""
        held, self._idle = self._idle, 0.0
        return int(held * 1e3)
