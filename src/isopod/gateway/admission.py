"""Which requests a worker takes in: decided by `refusal`, a pure function; `Admission` counts.

A request in flight is one that is served or waits for an instance. How many a tenant may have
depends on the room that is left (dynamic thresholds: Choudhury and Hahne 1998): alone it may take
half of a worker's room, beside n others an (n+2)th part, and so much is always free for the next.
A loop that is late sheds who is above the mean first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from isopod.errors import IsopodError, Overloaded
from isopod.gateway.quota import Quotas
from isopod.model.route import Route

# Of all tenants in one worker: each is a task, a connection and some 20 KiB.
MAX_IN_FLIGHT = 4096
# A loop so late for some time sheds requests of tenants above the mean; so much later, of anybody
# who has more than a few.
LATE_S = 0.25
COLLAPSE_S = 1.0
_FEW = 8
_TELL_EVERY_S = 10.0
_MAX_TOLD = 4096


# Not frozen: one is made for every request, and that would take longer.
@dataclass(slots=True)
class Load:
    """Of one worker, as one more request of a tenant arrives."""

    in_flight: int  # of all tenants
    of_tenant: int
    tenants: int  # that have a request in flight
    lag_s: float  # of the loop


def refusal(load: Load) -> str:
    """Why the request is not taken in; "" when it is."""
    if load.of_tenant >= MAX_IN_FLIGHT - load.in_flight:
        return f"{load.of_tenant:,} requests are in flight, and there is room for no more"
    if load.lag_s > LATE_S and load.of_tenant >= _FEW:
        above = load.tenants > 1 and load.of_tenant * load.tenants > load.in_flight
        if above or load.lag_s > COLLAPSE_S:
            return f"the worker is {load.lag_s:.1f} s late and {load.of_tenant:,} are in flight"
    return ""


class Admission:
    """`tell` writes a line to an app's log: visitors are told a sentence."""

    def __init__(
        self,
        *,
        quotas: Quotas,
        lag_s: Callable[[], float],
        tell: Callable[[Route, str], None],
    ) -> None:
        self.in_flight = 0
        self.refused = 0
        self._of_tenant: Counter[str] = Counter()
        self._quotas = quotas
        self._lag_s = lag_s
        self._tell = tell
        self._told: dict[str, float] = {}  # by app

    def enter(self, route: Route) -> None:
        """Take one request in; `leave` follows. Raises Overloaded, and what quotas raise."""
        tenant = route.tenant
        of_tenant = self._of_tenant[tenant]
        try:
            why = refusal(Load(self.in_flight, of_tenant, len(self._of_tenant) or 1, self._lag_s()))
            if why:
                raise Overloaded(f"tenant {tenant!r}: {why}")
            self._quotas.admit(tenant)
        except IsopodError as error:
            self.refused += 1
            self._say(route, error)
            raise
        self.in_flight += 1
        self._of_tenant[tenant] = of_tenant + 1

    def leave(self, route: Route, *, cpu_ns: int, egress_bytes: int) -> None:
        """It was answered, or its client is gone. What it used counts towards the quota."""
        self.in_flight -= 1
        left = self._of_tenant[route.tenant] - 1
        if left:
            self._of_tenant[route.tenant] = left
        else:
            del self._of_tenant[route.tenant]  # its keys are the tenants that have some
        self._quotas.count(route.tenant, cpu_ns=cpu_ns, egress_bytes=egress_bytes)

    def count(self, route: Route, *, egress_bytes: int) -> None:
        """Of what goes on for long. Raises what keeps the tenant's next request out for the day."""
        self._quotas.count(route.tenant, cpu_ns=0, egress_bytes=egress_bytes)
        self._quotas.check_today(route.tenant)

    def _say(self, route: Route, error: IsopodError) -> None:
        now = time.monotonic()
        if now - self._told.get(route.name, -_TELL_EVERY_S) < _TELL_EVERY_S:
            return
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()
        self._told[route.name] = now
        self._tell(route, f"{error.code}: {error.message}")
