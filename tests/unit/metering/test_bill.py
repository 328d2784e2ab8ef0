import json
from decimal import Decimal, localcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import UsageError
from isopod.metering.bill import Used, make_bill
from isopod.metering.prices import Cost, Stored, cost
from isopod.metering.rollups import Sums
from isopod.settings_file import Prices

PRICES = Prices()
NAMES = st.sampled_from(["a", "b", "c"])
AMOUNT = st.integers(0, 2**63 - 1)
SUMS = st.builds(Sums, *[AMOUNT] * 13)
PRICE = st.decimals(0, 1_000_000, places=18)
SHEETS = st.builds(
    Prices,
    cpu_ms=PRICE,
    gib_s=PRICE,
    request=PRICE,
    egress_gib=PRICE,
    snapshot_gib_month=PRICE,
    volume_gib_month=PRICE,
    wall_clock_gib_s=PRICE,
    wall_clock_memory_mib=st.integers(1, 1 << 20),
)
STORED = st.builds(Stored, AMOUNT, AMOUNT)
USED = st.lists(st.builds(Used, NAMES, NAMES, st.integers(0, 10**6), SUMS, STORED), max_size=12)
MIB, GIB = 2**20, 2**30


def bill(used, by="app", prices=PRICES):
    return make_bill(used, since=0, until=86_400, by=by, sheets=((0, prices),))


def test_a_request_that_waits_two_seconds_is_billed_for_its_three_milliseconds():
    sums = Sums(requests=1, cpu_ns=3_000_000, wall_ns=2_003_000_000, wall_100ms=21)
    found = cost(sums, Stored(), PRICES)
    assert found.cpu == Decimal("0.00000006")
    # 2.1 s at a quarter of a GiB, and the same price for the request.
    exact = Decimal("2.1") / 4 * PRICES.wall_clock_gib_s + PRICES.request
    assert abs(found.wall_clock - exact) < Decimal("1e-12")
    assert found.saved == found.wall_clock - found.total > 0


def test_each_amount_has_its_price():
    prices = Prices(
        cpu_ms=Decimal(1),
        gib_s=Decimal(1),
        request=Decimal(1),
        egress_gib=Decimal(1),
        snapshot_gib_month=Decimal(1),
        volume_gib_month=Decimal(2),
        wall_clock_gib_s=Decimal(1),
        wall_clock_memory_mib=1024,
    )
    sums = Sums(
        requests=2,
        cpu_ns=3_000_000,
        memory_byte_ms=4 * GIB * 1000,
        bytes_out=5 * GIB,
        wall_100ms=10,
        host_ns=10**9,  # not billed
        bytes_in=10**9,  # nor this
    )
    month = GIB * 30 * 86_400
    found = cost(sums, Stored(6 * month, 7 * month), prices)
    assert (found.cpu, found.memory, found.requests, found.egress) == (3, 4, 2, 5)
    assert (found.snapshots, found.volumes, found.total) == (6, 14, 34)
    assert found.wall_clock == 1 + 2 + 5


def test_amounts_are_rounded_once_half_to_even():
    prices = Prices(cpu_ms=Decimal("0.000000000001"))  # one unit of the last place
    shown = [cost(Sums(cpu_ns=ns), Stored(), prices).cpu for ns in (500_000, 1_500_000, 500_001)]
    assert shown == [0, Decimal("2e-12"), Decimal("1e-12")]


@given(USED, st.sampled_from(["app", "day", "hour"]), SHEETS)
def test_the_total_is_the_sum_of_the_lines(used, by, prices):
    found = bill(used, by, prices)
    with localcontext(prec=200):  # the sum that anybody would make of the text
        for name in (*Cost.__slots__, "total", "saved"):
            parts = [getattr(line.cost, name) for line in found.lines]
            assert sum(parts) == getattr(found.cost, name)
    assert sum(line.sums.cpu_ns for line in found.lines) == sum(u.sums.cpu_ns for u in used)
    assert found.stored == sum((one.stored for one in used), Stored())


@given(st.randoms(), USED, st.sampled_from(["app", "day", "hour"]))
def test_the_order_of_what_was_used_changes_nothing(random, used, by):
    shuffled = list(used)
    random.shuffle(shuffled)
    assert bill(shuffled, by).to_json() == bill(used, by).to_json()


@given(SUMS, STORED, SHEETS, st.sampled_from(Sums.__slots__), st.integers(1, 2**40))
def test_more_usage_never_costs_less(sums, stored, prices, name, more):
    before = cost(sums, stored, prices)
    setattr(sums, name, getattr(sums, name) + more)
    after = cost(sums, stored + Stored(more, more), prices)
    assert all(getattr(after, n) >= getattr(before, n) for n in Cost.__slots__)


@given(USED)
def test_money_and_large_amounts_are_exact_in_json(used):
    body = json.loads(json.dumps(bill(used).to_json()))
    for line in body["lines"]:
        parts = [Decimal(line["cost"][n]) for n in Cost.__slots__ if n != "wall_clock"]
        with localcontext(prec=200):
            assert sum(parts) == Decimal(line["cost"]["total"])
        assert "E" not in line["cost"]["total"]
        assert isinstance(line["usage"]["cpu_ns"], str)


@pytest.mark.parametrize(
    ("by", "lines"),
    [
        ("app", [("t", "a", None, 5), ("t", "b", None, 4)]),
        ("day", [("t", "", 0, 3), ("t", "", 86_400, 6)]),
        ("hour", [("t", "", 0, 1), ("t", "", 3600, 2), ("t", "", 86_400, 6)]),
    ],
)
def test_lines_are_by_app_day_or_hour(by, lines):
    used = [
        Used("t", "b", 86_401, Sums(requests=4)),
        Used("t", "a", 0, Sums(requests=1)),
        Used("t", "a", 3600, Sums(requests=2)),
        Used("t", "a", 86_400, Sums(requests=2)),
    ]
    found = bill(used, by).lines
    assert [(one.tenant, one.app, one.start, one.sums.requests) for one in found] == lines


def test_tenants_are_never_in_one_line():
    used = [Used("t", "a", 0, Sums(requests=1)), Used("u", "a", 0, Sums(requests=1))]
    assert [line.tenant for line in bill(used, "day").lines] == ["t", "u"]


def test_the_worked_example_of_the_docs_holds():
    sums = Sums(
        requests=10**6,
        cpu_ns=3_000_000 * 10**6,
        memory_byte_ms=int(1.4 * MIB * 2003) * 10**6,
        bytes_out=200 * 10**6,
        wall_100ms=21 * 10**6,
    )
    found = cost(sums, Stored(), PRICES)
    page = (Path(__file__).parents[3] / "docs" / "billing.md").read_text()
    for amount, places in [(found.memory, 4), (found.egress, 4), (found.total, 2)]:
        assert f" {amount:.{places}f} " in page or f"**{amount:.{places}f}**" in page
    assert f"**{found.wall_clock:.2f}**" in page


def test_each_day_has_the_prices_that_held_and_a_line_is_their_sum():
    day = 86_400
    sheets = ((0, Prices(request=Decimal(1))), (2 * day, Prices(request=Decimal(10))))
    used = [Used("t", "a", n * day, Sums(requests=1)) for n in range(4)]
    found = make_bill(used, since=0, until=4 * day, by="app", sheets=sheets)
    assert [line.cost.requests for line in found.lines] == [22]
    assert found.cost.requests == 22 and found.sums.requests == 4
    days = make_bill(used, since=0, until=4 * day, by="day", sheets=sheets)
    assert [line.cost.requests for line in days.lines] == [1, 1, 10, 10]
    said = found.to_json()
    assert said["prices"]["request"] == "10"
    assert [one["from"][:10] for one in said["price_sheets"]] == ["1970-01-01", "1970-01-03"]
    before = make_bill(used[:2], since=0, until=2 * day, by="app", sheets=sheets)
    assert before.to_json()["prices"]["request"] == "1"


def test_a_bill_has_one_currency():
    sheets = ((0, Prices()), (86_400, Prices(currency="EUR")))
    with pytest.raises(UsageError, match="currency") as told:
        make_bill([], since=0, until=90_000, by="app", sheets=sheets)
    assert "1970-01-02T00:00:00Z" in told.value.hint
    for since, until, currency in ((0, 86_400, "USD"), (86_400, 90_000, "EUR")):
        found = make_bill([], since=since, until=until, by="app", sheets=sheets)
        assert found.prices.currency == currency
