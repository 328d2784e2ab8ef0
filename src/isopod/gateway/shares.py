"""What one instance uses, divided among the requests that it serves at the same time.

Nobody can say for whom an event loop ran: so what was used between two moments at which a request
began or ended is divided equally among those that were open, and nothing is counted twice or lost.
What was used while none was open is the next one's. Plain arithmetic on totals that only grow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """Of an instance, since it was made; of a request, its part."""

    cpu_ns: int = 0
    host_ns: int = 0
    sent_bytes: int = 0
    memory_byte_ns: int = 0


class Shares:
    __slots__ = ("_carried", "_each", "_seen", "requests")

    def __init__(self) -> None:
        self.requests = 0  # open
        self._seen = (0, 0, 0, 0)
        self._carried = (0, 0, 0, 0)  # less than there are requests of each; more while none is
        self._each = (0, 0, 0, 0)  # what one that was there from the beginning would have had

    def begin(self, totals: Totals) -> Totals:
        """One more; gives what `end` wants."""
        if self.requests:
            self._divide(totals)
        self.requests += 1
        return Totals(*self._each)

    def so_far(self, totals: Totals) -> int:
        """CPU, as `Totals` counts it in what `begin` gave."""
        self._divide(totals)
        return self._each[0]

    def end(self, totals: Totals, began: Totals) -> Totals:
        """One less: its part."""
        self._divide(totals)
        self.requests -= 1
        each = self._each
        return Totals(
            each[0] - began.cpu_ns,
            each[1] - began.host_ns,
            each[2] - began.sent_bytes,
            each[3] - began.memory_byte_ns,
        )

    def take(self, totals: Totals) -> Totals:
        """All that is nobody's, while no request is open."""
        seen = self._seen
        self._seen = _values(totals)
        taken = Totals(
            *(
                carried + now - before
                for carried, now, before in zip(self._carried, self._seen, seen, strict=True)
            )
        )
        self._carried = (0, 0, 0, 0)
        return taken

    def _divide(self, totals: Totals) -> None:
        now, seen, carried, each = _values(totals), self._seen, self._carried, self._each
        self._seen = now
        new = (
            carried[0] + now[0] - seen[0],
            carried[1] + now[1] - seen[1],
            carried[2] + now[2] - seen[2],
            carried[3] + now[3] - seen[3],
        )
        count = self.requests
        if count == 1:  # as a rule
            self._carried = (0, 0, 0, 0)
            self._each = (each[0] + new[0], each[1] + new[1], each[2] + new[2], each[3] + new[3])
        elif count:
            parts = [divmod(one, count) for one in new]
            self._carried = (parts[0][1], parts[1][1], parts[2][1], parts[3][1])
            self._each = (
                each[0] + parts[0][0],
                each[1] + parts[1][0],
                each[2] + parts[2][0],
                each[3] + parts[3][0],
            )
        else:
            self._carried = new


def _values(totals: Totals) -> tuple[int, int, int, int]:
    return (totals.cpu_ns, totals.host_ns, totals.sent_bytes, totals.memory_byte_ns)
