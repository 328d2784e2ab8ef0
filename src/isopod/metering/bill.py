"""Usage as a bill: one line for each app, day or hour, each beside its wall-clock bill.

Pure. Where the amounts come from is `control.usage`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from isopod.errors import UsageError
from isopod.metering.prices import NOTHING_STORED, Cost, Sheets, Stored, cost, held, text
from isopod.metering.rollups import Sums
from isopod.settings_file import Prices

By = Literal["app", "day", "hour"]
GRAIN_S: dict[By, int] = {"day": 86_400, "hour": 3600}


@dataclass(frozen=True, slots=True)
class Used:
    """What one app used in the interval that begins at `start`, in which one price sheet held."""

    tenant: str
    app: str  # its name within the tenant; "" for volumes that no app mounts
    start: int  # seconds since the epoch
    sums: Sums
    stored: Stored = NOTHING_STORED


@dataclass(frozen=True, slots=True)
class Line:
    """`app` is "" where a line is of several, `start` None where it is of the whole period."""

    tenant: str
    app: str
    start: int | None
    sums: Sums
    stored: Stored
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "app": self.app,
            "start": None if self.start is None else moment(self.start),
            "usage": usage_json(self.sums, self.stored),
            "cost": cost_json(self.cost),
        }


@dataclass(frozen=True, slots=True)
class Bill:
    """Of [since, until), seconds since the epoch. The totals are the sums of the lines."""

    since: int
    until: int
    by: By
    sheets: Sheets  # at least one
    lines: tuple[Line, ...]
    sums: Sums
    stored: Stored
    cost: Cost

    @property
    def prices(self) -> Prices:
        """The latest."""
        return self.sheets[-1][1]

    def to_json(self) -> dict[str, Any]:
        return {
            "from": moment(self.since),
            "to": moment(self.until),
            "by": self.by,
            "prices": self.prices.to_json(),
            "price_sheets": [
                {"from": moment(since), "prices": prices.to_json()} for since, prices in self.sheets
            ],
            "lines": [line.to_json() for line in self.lines],
            "total": {
                "usage": usage_json(self.sums, self.stored),
                "cost": cost_json(self.cost),
            },
        }


def make_bill(used: Iterable[Used], *, since: int, until: int, by: By, sheets: Sheets) -> Bill:
    """Lines in the order of tenant, then app or time. `used` may come in any order, in pieces.
    UsageError where the sheets have several currencies."""
    sheets = held(sheets, since, until)
    if len({prices.currency for _, prices in sheets}) > 1:
        raise UsageError(
            "the currency of the prices changed in this period",
            hint=f"ask until {moment(sheets[-1][0])} and from then on",
        )
    grouped: dict[tuple[str, str, int], dict[int, tuple[Sums, Stored]]] = {}
    for one in used:
        start = one.start - one.start % GRAIN_S[by] if by in GRAIN_S else 0
        key = (one.tenant, one.app if by == "app" else "", start)
        sheet = max((at for at, (day, _) in enumerate(sheets) if day <= one.start), default=0)
        by_sheet = grouped.setdefault(key, {})
        sums, stored = by_sheet.get(sheet) or (Sums(), Stored())
        sums.add(one.sums)
        by_sheet[sheet] = (sums, stored + one.stored)
    lines = []
    for (tenant, app, start), by_sheet in sorted(grouped.items(), key=lambda kv: kv[0]):
        total, all_stored, money = Sums(), Stored(), Cost()
        for sheet, (sums, stored) in sorted(by_sheet.items()):
            total.add(sums)
            all_stored += stored
            money += cost(sums, stored, sheets[sheet][1])
        lines.append(Line(tenant, app, start if by in GRAIN_S else None, total, all_stored, money))
    total, all_stored, money = Sums(), Stored(), Cost()
    for line in lines:
        total.add(line.sums)
        all_stored += line.stored
        money += line.cost
    return Bill(since, until, by, sheets, tuple(lines), total, all_stored, money)


def usage_json(sums: Sums, stored: Stored) -> dict[str, str | int]:
    """Counts as numbers, amounts as text: nanoseconds and byte-milliseconds of a month are more
    than the 2**53 that JSON readers keep exact."""
    counts = ("requests", "cold_starts", "starts", "errors")
    said: dict[str, str | int] = {
        one.name: value if one.name in counts else str(value)
        for one in fields(Sums)
        for value in (getattr(sums, one.name),)
    }
    return {**said, **{one.name: str(getattr(stored, one.name)) for one in fields(Stored)}}


def cost_json(money: Cost) -> dict[str, str]:
    said = {one.name: text(getattr(money, one.name)) for one in fields(Cost)}
    return {**said, "total": text(money.total), "saved": text(money.saved)}


def moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
