"""What the host's own WASI calls answer: waiting and randomness, without blocking the loop.

Layouts: `subscription` is 48 bytes, `event` 32 (wasi_snapshot_preview1 witx). wasmtime's own
`poll_oneoff` sleeps inside the call, where neither an epoch nor a deadline could end it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

EAGAIN, EBADF, EINPROGRESS, EINVAL, ENOTSOCK, ENOTSUP = 6, 8, 26, 28, 57, 58
MAX_SUBSCRIPTIONS = 1024

_SUBSCRIPTION = struct.Struct("<QB7xIxxxxQQH6x")  # userdata, tag, clock or fd, timeout, _, flags
_EVENT = struct.Struct("<QHB5xQH6x")  # userdata, error, type, nbytes, flags
SUBSCRIPTION_BYTES = _SUBSCRIPTION.size
EVENT_BYTES = _EVENT.size

_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
REALTIME, MONOTONIC, PROCESS_CPU, THREAD_CPU = 0, 1, 2, 3
_ABSOLUTE = 1


@dataclass(frozen=True, slots=True)
class PollPlan:
    """What one `poll_oneoff` answers: an errno, or the events to write after `wait_s`. `awaited`:
    descriptor -> what may end the wait before (1: it can be read; 2: written)."""

    errno: int = 0
    events: bytes = b""
    count: int = 0
    wait_s: float = 0.0
    awaited: dict[int, int] = field(default_factory=dict)


def plan_poll(
    subscriptions: bytes,
    *,
    realtime_ns: int,
    monotonic_ns: int,
    step_ns: int,
    polled: Callable[[int, int], int | None] = lambda _fd, _mask: 0,
) -> PollPlan:
    """`polled`: None for a descriptor that is not ready to be read (1) or written (2); else an
    errno. Files are always. Otherwise the shortest clock wins. Waits are whole steps of the guest's
    clocks, and over when those clocks say so."""
    realtime_ns -= realtime_ns % step_ns
    monotonic_ns -= monotonic_ns % step_ns
    ready: list[bytes] = []
    clocks: list[tuple[int, int]] = []
    awaited: dict[int, int] = {}
    for userdata, tag, which, given_ns, _precision, flags in _SUBSCRIPTION.iter_unpack(
        subscriptions
    ):
        if tag == _CLOCK:
            if which not in (REALTIME, MONOTONIC):
                return PollPlan(errno=EINVAL)
            if flags & _ABSOLUTE:
                given_ns -= realtime_ns if which == REALTIME else monotonic_ns
            clocks.append((max(0, -(-given_ns // step_ns) * step_ns), userdata))
        elif tag in (_FD_READ, _FD_WRITE):
            errno = polled(which, tag)
            if errno is None:
                awaited[which] = awaited.get(which, 0) | tag
            else:
                ready.append(_EVENT.pack(userdata, errno, tag, 1, 0))
        else:
            return PollPlan(errno=EINVAL)
    if ready:
        return PollPlan(events=b"".join(ready), count=len(ready))
    if not clocks:
        return PollPlan(wait_s=math.inf, awaited=awaited) if awaited else PollPlan(errno=EINVAL)
    wait_ns = min(timeout for timeout, _ in clocks)
    due = [_EVENT.pack(u, 0, _CLOCK, 0, 0) for timeout, u in clocks if timeout <= wait_ns]
    wait_s = wait_ns / 1e9
    return PollPlan(events=b"".join(due), count=len(due), wait_s=wait_s, awaited=awaited)
