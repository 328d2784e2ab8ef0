"""How late a worker's loop runs what is due: the one sign of overload that no app can hide."""

from __future__ import annotations

import asyncio
from collections import deque

_EVERY_S = 0.1
# A loop that was held up once has no lag: only what lasts so many looks is one.
_LOOKS = 3


class LoopLag:
    """Made on the loop that it watches."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last: deque[float] = deque([0.0] * _LOOKS, maxlen=_LOOKS)
        self.worst_s = 0.0  # since it was last read by `take_worst`
        self._look_at(self._loop.time() + _EVERY_S)

    @property
    def seconds(self) -> float:
        """The least of the last looks."""
        return min(self._last)

    def take_worst(self) -> float:
        """The longest since the last call, for who watches the node."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst

    def close(self) -> None:
        self._timer.cancel()

    def _look_at(self, due: float) -> None:
        self._timer = self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        now = self._loop.time()
        late = max(0.0, now - due)
        self._last.append(late)
        self.worst_s = max(self.worst_s, late)
        self._look_at(now + _EVERY_S)
