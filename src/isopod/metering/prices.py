"""What usage costs: amounts times prices, in exact decimals.

Each amount of a line is rounded once, to `PLACES` behind the point, half to even; a total is the
sum of what its lines show and is not rounded again. How many places an invoice has is its writer's
choice.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import ROUND_HALF_EVEN, Context, Decimal

from isopod.metering.rollups import Sums
from isopod.settings_file import Prices

# Price sheets, each from the day (seconds since the epoch) it holds; in their order.
Sheets = tuple[tuple[int, Prices], ...]
PLACES = 12
WALL_CLOCK_UNIT_MS = 100  # of a request's time, rounded up: what `Sums.wall_100ms` counts
MONTH_S = 30 * 86_400  # of a price per month, whatever the calendar says
_GIB = 2**30
_QUANTUM = Decimal(1).scaleb(-PLACES)
# Enough for the product of any 64-bit amount and a price, and for its 12 places. Used for every sum
# too: Python's own context rounds to 28 digits without a word.
_EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
ZERO = Decimal(0).quantize(_QUANTUM)


@dataclass(frozen=True, slots=True)
class Stored:
    """Sizes times the time that they were stored."""

    snapshot_byte_s: int = 0
    volume_byte_s: int = 0

    def __add__(self, other: Stored) -> Stored:
        return Stored(
            self.snapshot_byte_s + other.snapshot_byte_s, self.volume_byte_s + other.volume_byte_s
        )


NOTHING_STORED = Stored()


@dataclass(frozen=True, slots=True)
class Cost:
    """What one line costs, item by item, and beside it what the same requests would cost where
    wall-clock time is billed. Amounts of the price sheet's currency."""

    cpu: Decimal = ZERO  # of requests and of starts
    memory: Decimal = ZERO  # private memory of live instances, idle or not
    requests: Decimal = ZERO
    egress: Decimal = ZERO
    snapshots: Decimal = ZERO
    volumes: Decimal = ZERO
    wall_clock: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        storage = _sum(self.snapshots, self.volumes)
        return _sum(self.cpu, self.memory, self.requests, self.egress, storage)

    @property
    def saved(self) -> Decimal:
        """Of the wall-clock bill; below 0 where that one is cheaper."""
        return _EXACT.subtract(self.wall_clock, self.total)

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(_sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(Cost)))


def held(sheets: Sheets, since: int, until: int) -> Sheets:
    """Those that hold within [since, until): the first one at its start, the others later."""
    before = [one for one in sheets if one[0] <= since][-1:] or list(sheets[:1])
    later = [one for one in sheets if since < one[0] < until and one not in before]
    return (*((since, prices) for _, prices in before), *later)


def cost(sums: Sums, stored: Stored, prices: Prices) -> Cost:
    """Host CPU is not billed: it is the node's own work.

    The comparison has the same prices for requests and egress, takes the request's time as we
    measured it, and leaves out what such clouds do not bill apart: starts, idle memory, snapshots,
    volumes.
    """
    unit_s = sums.wall_100ms * WALL_CLOCK_UNIT_MS
    requests = _money(sums.requests, prices.request)
    egress = _money(sums.bytes_out, prices.egress_gib, per=_GIB)
    wall_clock = _money(
        unit_s * prices.wall_clock_memory_mib, prices.wall_clock_gib_s, per=1000 * 1024
    )
    return Cost(
        cpu=_money(sums.cpu_ns, prices.cpu_ms, per=10**6),
        memory=_money(sums.memory_byte_ms, prices.gib_s, per=_GIB * 1000),
        requests=requests,
        egress=egress,
        snapshots=_money(stored.snapshot_byte_s, prices.snapshot_gib_month, per=_GIB * MONTH_S),
        volumes=_money(stored.volume_byte_s, prices.volume_gib_month, per=_GIB * MONTH_S),
        wall_clock=_sum(wall_clock, requests, egress),
    )


def _money(amount: int, price: Decimal, *, per: int = 1) -> Decimal:
    product = _EXACT.multiply(Decimal(amount), price)
    return _EXACT.divide(product, Decimal(per)).quantize(_QUANTUM, context=_EXACT)


def _sum(*amounts: Decimal) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def text(money: Decimal) -> str:
    """As statements and JSON hold it: all places, no exponent."""
    return format(money, "f")
