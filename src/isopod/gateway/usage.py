"""What requests, starts and live instances used, as usage records.

A request is billed from when it has an instance to when that is free again, so with what the app
does after its response. What was refused before is nobody's. Requests that share an instance at
the same time share what it uses (see `shares`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from isopod.gateway.shares import NOTHING
from isopod.gateway.slot import Slot
from isopod.model.route import Route
from isopod.model.usage import UsageRecord, hundreds_of_ms


class RequestUse:
    """One request's use of an instance. Made when it has it; `end` before it gives it back."""

    __slots__ = ("_began", "_began_ns", "_part", "_peak", "_slot", "_wall_ns", "cold")

    def __init__(self, slot: Slot, *, cold: bool) -> None:
        self.cold = cold
        self._slot = slot
        self._began_ns = time.monotonic_ns()
        self._wall_ns = self._peak = 0
        self._part = NOTHING
        self._began = slot.begin_use(self._began_ns)

    @property
    def egress_bytes(self) -> int:
        """After `end`: sent by the app's own connections."""
        return self._part.sent_bytes

    @property
    def route(self) -> Route:
        return self._slot.route

    def end(self) -> None:
        """Also when its guest was ended: its CPU is counted all the same."""
        slot = self._slot
        now_ns = time.monotonic_ns()
        self._wall_ns = now_ns - self._began_ns
        self._peak = slot.guest.peak_memory_bytes
        self._part = slot.end_use(self._began, now_ns, peak_memory_bytes=self._peak)

    def record(
        self,
        *,
        request_id: str,
        outcome: str,
        status: int,
        host_ns: int,
        bytes_in: int,
        bytes_out: int,
    ) -> UsageRecord:
        """After `end`. `host_ns`: of the gateway's own steps."""
        route, slot = self._slot.route, self._slot
        part = self._part
        host_ns += part.host_ns
        return UsageRecord(
            kind="request",
            at=time.time(),
            tenant=route.tenant,
            app=route.name,
            version=route.version,
            instance=slot.id,
            request_id=request_id,
            outcome=outcome,
            status=status,
            cold=self.cold,
            cpu_ns=part.cpu_ns,
            host_ns=host_ns,
            wall_ns=self._wall_ns,
            wait_ns=max(0, self._wall_ns - part.cpu_ns - host_ns),
            peak_memory_bytes=self._peak,
            memory_byte_ms=part.memory_byte_ns // 1_000_000,
            bytes_in=bytes_in,
            bytes_out=bytes_out + part.sent_bytes,
            wall_100ms=hundreds_of_ms(self._wall_ns),
        )


def head_bytes(first_line: int, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """A head as HTTP/1.1 writes it, whatever the connection speaks. `first_line`: its length."""
    size = first_line + 4
    for name, value in headers:  # faster than a sum of a generator
        size += len(name) + len(value) + 4
    return size
