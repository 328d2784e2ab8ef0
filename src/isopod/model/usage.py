"""What an invocation used: exact, billable, recorded once. (Metrics are something else.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from isopod.model.tenant import TenantName

# request: one invocation; start: an instance's boot or restore, billed to the app, not to the
# request that waited for it; live: memory that an instance held in an interval, idle or not.
UsageKind = Literal["request", "start", "live"]


# Not frozen: one is made for every request, and that would take 2 us more.
@dataclass(slots=True)
class UsageRecord:
    """Amounts that do not apply to a kind are 0. Its id is (node, epoch, sequence): given by the
    spool when the record is written, never by a guest or a client."""

    kind: UsageKind
    at: float  # seconds since the epoch: its end
    tenant: TenantName
    app: str  # label
    version: int
    instance: str  # the instance's id
    request_id: str = ""
    outcome: str = "ok"  # "ok" or the error's code
    status: int = 0  # HTTP
    cold: bool = False  # the request waited for a start
    cpu_ns: int = 0  # thread time inside the guest's slices
    host_ns: int = 0  # thread time of ours for it, apart
    wall_ns: int = 0
    wait_ns: int = 0  # of the wall time: the guest waited (sleep, client, run queue)
    peak_memory_bytes: int = 0  # linear memory
    memory_byte_ms: int = 0  # private memory times the time it was held
    bytes_in: int = 0  # request head and body
    bytes_out: int = 0  # response head and body, and what the app's own connections sent: egress
    # What a bill by wall-clock would count of a request: started units of 100 ms. Of sums alone
    # it could not be had.
    wall_100ms: int = 0
    # More than 1 only where records could not be written for so long that they were added up.
    count: int = 1


def hundreds_of_ms(wall_ns: int) -> int:
    """A request's time as others bill it: each begun 100 ms counts."""
    return -(-wall_ns // 100_000_000)
