"""Rates: a bucket of tokens for each key, filled steadily, in bounded memory.

Time may come from anywhere that does not go back; nothing here waits or runs by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class Buckets:
    """`burst` at once, then `per_s` sustained. Of more than `keys`, who was not heard of for the
    longest is forgotten: then its bucket is full again."""

    def __init__(
        self, *, burst: float, per_s: float, keys: int, clock: Callable[[], float]
    ) -> None:
        self._burst, self._per_s, self._keys, self._clock = burst, per_s, keys, clock
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # amount, when

    def wait_s(self, key: Hashable) -> float:
        """Until there is something for `key`; 0 when there is now."""
        return max(0.0, (1.0 - self._amount(key)) / self._per_s)

    def take(self, key: Hashable) -> float:
        """As `wait_s`; when that is 0, it is taken."""
        amount = self._amount(key)
        if amount < 1.0:
            return (1.0 - amount) / self._per_s
        self._left[key] = (amount - 1.0, self._clock())
        self._left.move_to_end(key)
        if len(self._left) > self._keys:
            self._left.popitem(last=False)
        return 0.0

    def _amount(self, key: Hashable) -> float:
        amount, then = self._left.get(key, (self._burst, self._clock()))
        return min(self._burst, amount + (self._clock() - then) * self._per_s)
