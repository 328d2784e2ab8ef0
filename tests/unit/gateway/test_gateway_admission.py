"""Who is taken in: the pure decision, then what counts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import Overloaded, TenantSuspended
from isopod.gateway.admission import (
    COLLAPSE_S,
    LATE_S,
    MAX_IN_FLIGHT,
    Admission,
    Load,
    refusal,
)
from isopod.model.tenant import Tenant, TenantName

LOADS = st.builds(
    lambda others, mine, tenants, lag: Load(sum(others) + mine, mine, tenants, lag),
    st.lists(st.integers(1, 2000), max_size=5),
    st.integers(0, 5000),
    st.integers(1, 20),
    st.floats(0, 5),
)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400))
def test_there_is_always_room_for_a_tenant_that_has_nothing_in_flight(arrivals):
    """Ten tenants fill a worker as far as they can, whatever their order."""
    has: Counter[int] = Counter()
    for tenant in arrivals * 40:
        if not refusal(Load(has.total(), has[tenant], len(has) or 1, 0.0)):
            has[tenant] += 1
        assert not refusal(Load(has.total(), 0, len(has) + 1, 0.0))
    assert has.total() < MAX_IN_FLIGHT


def test_one_alone_may_take_half_and_two_a_third_each():
    def fill(tenants: int) -> list[int]:
        has = [0] * tenants
        moved = True
        while moved:
            moved = False
            for number in range(tenants):
                if not refusal(Load(sum(has), has[number], tenants, 0.0)):
                    has[number] += 1
                    moved = True
        return has

    assert fill(1) == [MAX_IN_FLIGHT // 2]
    assert all(abs(one - MAX_IN_FLIGHT // 3) <= 1 for one in fill(2))


@given(LOADS)
def test_a_late_worker_refuses_who_is_above_the_mean_before_anybody_else(load):
    if load.of_tenant >= MAX_IN_FLIGHT - load.in_flight:
        assert refusal(load)
        return
    below = load.of_tenant * load.tenants <= load.in_flight
    if load.lag_s <= LATE_S or (below and load.lag_s <= COLLAPSE_S) or load.of_tenant < 8:
        assert not refusal(load)
    elif load.lag_s > COLLAPSE_S or load.tenants > 1:
        assert refusal(load)


def test_what_is_in_flight_is_counted_by_tenant_and_forgotten(quotas, route):
    admission = Admission(quotas=quotas, lag_s=lambda: 0.0, tell=lambda *_: None)
    one, other = route("one", tenant="a"), route("other", tenant="b")
    for served in (one, one, other):
        admission.enter(served)
    assert (admission.in_flight, dict(admission._of_tenant)) == (3, {"a": 2, "b": 1})
    for served in (one, one, other):
        admission.leave(served, cpu_ns=0, egress_bytes=0)
    assert (admission.in_flight, dict(admission._of_tenant)) == (0, {})


def test_a_flood_of_one_tenant_is_refused_and_the_log_says_so_once(quotas, route):
    told: list[str] = []
    admission = Admission(
        quotas=quotas, lag_s=lambda: 2 * LATE_S, tell=lambda _route, line: told.append(line)
    )
    flooded, calm = route("flooded", tenant="a"), route("calm", tenant="b")
    admission.enter(calm)
    refused = 0
    for _ in range(100):
        try:
            admission.enter(flooded)
        except Overloaded:
            refused += 1
    assert admission.refused == refused > 50
    admission.enter(calm)
    assert len(told) == 1
    assert told[0].startswith("overloaded: tenant 'a': the worker is 0.5 s late")


def test_a_suspended_tenant_is_refused_and_takes_no_place(quotas, route):
    quotas.follow({"a": Tenant(TenantName("a"), suspended=True)})
    admission = Admission(quotas=quotas, lag_s=lambda: 0.0, tell=lambda *_: None)
    with pytest.raises(TenantSuspended):
        admission.enter(route(tenant="a"))
    assert admission.in_flight == 0
    admission.enter(route(tenant="b"))
