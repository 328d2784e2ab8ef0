"""What one instance uses, divided among the requests that it serves at the same time.

Nobody can say for whom an event loop ran: so what was used between two moments at which a request
began or ended is divided equally among those that were open, and nothing is counted twice or lost.
What was used while none was open is the next one's. Plain arithmetic on totals that only grow.
"""

from __future__ import annotations

from typing import NamedTuple


# A tuple, as some are made for every request: a frozen dataclass takes four times as long.
class Totals(NamedTuple):
    """Of an instance, since it was made; of a request, its part."""

    cpu_ns: int = 0
    host_ns: int = 0
    sent_bytes: int = 0
    memory_byte_ns: int = 0


NOTHING = Totals()


class Shares:
    __slots__ = ("_carried", "_each", "_seen", "requests")

    def __init__(self) -> None:
        self.requests = 0  # open
        self._seen = NOTHING
        self._carried = NOTHING  # less than there are requests of each; more while none is
        self._each = NOTHING  # what one that was there from the beginning would have had

    def begin(self, totals: Totals) -> Totals:
        """One more; gives what `end` wants."""
        if self.requests:
            self._divide(totals)
        self.requests += 1
        return self._each

    def so_far(self, totals: Totals) -> int:
        """CPU, as `Totals` counts it in what `begin` gave."""
        self._divide(totals)
        return self._each.cpu_ns

    def end(self, totals: Totals, began: Totals) -> Totals:
        """One less: its part."""
        self._divide(totals)
        self.requests -= 1
        return _less(self._each, began)

    def take(self, totals: Totals) -> Totals:
        """All that is nobody's, while no request is open."""
        taken = _more(self._carried, _less(totals, self._seen))
        self._seen, self._carried = totals, NOTHING
        return taken

    def _divide(self, totals: Totals) -> None:
        new = _more(self._carried, _less(totals, self._seen))
        self._seen = totals
        count = self.requests
        if count == 1:  # as a rule
            self._carried, self._each = NOTHING, _more(self._each, new)
        elif count:
            parts = [divmod(one, count) for one in new]
            self._carried = Totals(*(left for _, left in parts))
            self._each = _more(self._each, Totals(*(each for each, _ in parts)))
        else:
            self._carried = new


def _more(one: Totals, other: Totals) -> Totals:
    (a, b, c, d), (e, f, g, h) = one, other
    return Totals(a + e, b + f, c + g, d + h)


def _less(one: Totals, other: Totals) -> Totals:
    (a, b, c, d), (e, f, g, h) = one, other
    return Totals(a - e, b - f, c - g, d - h)
