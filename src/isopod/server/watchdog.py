"""When a child's loop counts as stalled.

A child that is watched writes a byte to its ready pipe every `BEAT_S`, from its event loop. One
that is silent for long hangs, and is replaced, unless the silence has another reason: this process
was not running either (the machine slept, or is drowning), or the child wanted a CPU and got none.
A loop that is merely busy beats on: guests run in slices of milliseconds.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 0.5
LOOK_S = 0.5
_LATE_S = 1.0  # a look that comes later says more about this process than about the child


@dataclass(slots=True)
class Watch:
    """One process's silence. `now_s` and `waited_s` only ever rise."""

    limit_s: float
    now_s: float
    waited_s: float = 0.0
    silent_s: float = 0.0

    def look(self, now_s: float, *, beaten: bool, waited_s: float) -> bool:
        """Whether it is stalled. `beaten`: since the last look. `waited_s`: how long its main
        thread has waited for a CPU since it began."""
        gap, waited = now_s - self.now_s, waited_s - self.waited_s
        self.now_s, self.waited_s = now_s, waited_s
        if beaten:
            self.silent_s = 0.0
        elif gap <= LOOK_S + _LATE_S:
            self.silent_s += max(0.0, gap - waited)
        return self.silent_s >= self.limit_s


def waited_for_cpu_s(pid: int) -> float:
    """Of the process's main thread; 0 where the kernel does not say (CONFIG_SCHED_INFO)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0
