"""Where a request's time went, for its `Server-Timing` header (W3C Server Timing)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

CPU_HEADER = b"x-isopod-cpu-ms"


@dataclass(slots=True)
class Timing:
    """Milliseconds. `guest` is CPU time; `wait` is what remains of the wall clock: the guest's
    sleeps, its client, and its turn in the run queue."""

    queue_ms: float = 0.0
    start_ms: float = 0.0
    guest_ms: float = 0.0
    began: float = field(default_factory=time.monotonic)  # when the guest got the request

    def header(self) -> str:
        wall_ms = (time.monotonic() - self.began) * 1e3
        wait_ms = max(0.0, wall_ms - self.guest_ms)
        return (
            f"queue;dur={self.queue_ms:.2f}, start;dur={self.start_ms:.2f}, "
            f"guest;dur={self.guest_ms:.2f}, wait;dur={wait_ms:.2f}"
        )

    def cpu_header(self) -> tuple[bytes, bytes]:
        """For apps that ask for it (`debug`): CPU up to the response head, as it is billed."""
        return CPU_HEADER, f"{self.guest_ms:.3f}".encode()


def no_guest() -> str:
    """The header of an answer that no guest took part in."""
    return "queue;dur=0.00, start;dur=0.00, guest;dur=0.00, wait;dur=0.00"
