import time
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import NameInvalid, QuotaExceeded, TenantSuspended, TooManyRequests
from isopod.gateway import quota as quota_module
from isopod.gateway.quota import Quotas, Today, over_live, over_today
from isopod.gateway.tenant_use import CPU_NS, DAY, INSTANCES, REQUESTS, TenantUse
from isopod.model.tenant import Quota, Tenant, TenantName

DAY_S = 86_400
MIB = 1 << 20


def acme(**quota: int) -> dict[TenantName, Tenant]:
    name = TenantName("acme")
    return {name: Tenant(name, quota=Quota(**quota))}


class Clock:
    def __init__(self) -> None:
        self.now = 20_000.0 * DAY_S

    def __call__(self) -> float:
        return self.now


@contextmanager
def workers(folder, count: int, clock=time.time):
    """The quotas of so many workers of a node, in one process."""
    with ExitStack() as held:
        made = [
            Quotas(folder=folder / "quota", worker=number, workers=count, clock=clock)
            for number in range(count)
        ]
        for one in made:
            held.callback(one.close)
        yield made


def burst(quotas: Quotas, most: int = 10_000) -> int:
    """How many requests pass at once."""
    for number in range(most):
        try:
            quotas.admit("acme")
        except TooManyRequests as error:
            assert error.details["retry_after_s"] > 0
            return number
    return most


@pytest.fixture
def stopped(monkeypatch):
    """The buckets' clock, by hand."""
    now = [1000.0]
    monkeypatch.setattr(quota_module.time, "monotonic", lambda: now[0])
    return now


def test_a_tenant_without_a_quota_is_not_bounded(tmp_path):
    with workers(tmp_path, 1) as (quotas,):
        quotas.follow({TenantName("acme"): Tenant(TenantName("acme"))})
        assert burst(quotas) == 10_000
        assert not quotas.limited("acme")
        assert quotas.over_live("acme", 1 << 50) is None
        assert not (tmp_path / "quota").exists()


def test_a_burst_of_one_seconds_worth_passes_and_then_the_rate(tmp_path, stopped):
    with workers(tmp_path, 1) as (quotas,):
        quotas.follow(acme(requests_per_s=20))
        assert burst(quotas) == 20
        stopped[0] += 0.5
        assert burst(quotas) == 10
        stopped[0] += 60
        assert burst(quotas) == 20


def test_the_rate_is_that_of_all_workers_together(tmp_path, stopped):
    with workers(tmp_path, 3) as all_of_them:
        for quotas in all_of_them:
            quotas.follow(acme(requests_per_s=30))
        assert sum(burst(quotas) for quotas in all_of_them) == 30
        passed = 0
        for step in range(100):
            stopped[0] += 0.05
            passed += burst(all_of_them[step % 3])
        assert 140 <= passed <= 151


def test_a_changed_quota_holds_at_once_and_one_that_is_gone_bounds_no_more(tmp_path, stopped):
    with workers(tmp_path, 1) as (quotas,):
        quotas.follow(acme(requests_per_s=5))
        assert burst(quotas) == 5
        quotas.follow(acme(requests_per_s=50))
        assert burst(quotas) == 50
        quotas.follow({})
        assert burst(quotas) == 10_000


def test_the_amounts_of_a_day_are_counted_over_all_workers_and_begin_again(tmp_path):
    clock = Clock()
    with workers(tmp_path, 2, clock) as (one, other):
        for quotas in (one, other):
            quotas.follow(acme(cpu_s_per_day=10, egress_mib_per_day=100))
        one.count("acme", cpu_ns=6 * 10**9, egress_bytes=0)
        other.admit("acme")
        other.count("acme", cpu_ns=4 * 10**9, egress_bytes=0)
        for quotas in (one, other):
            with pytest.raises(QuotaExceeded) as caught:
                quotas.admit("acme")
            assert caught.value.details == {"quota": "cpu_s_per_day", "limit": 10, "used": 10}
        clock.now += DAY_S
        one.admit("acme")
        one.count("acme", cpu_ns=0, egress_bytes=100 * MIB)
        with pytest.raises(QuotaExceeded, match="100 of 100 MiB of egress today"):
            other.admit("acme")


def test_a_worker_that_was_killed_has_used_what_it_used(tmp_path):
    clock = Clock()
    with workers(tmp_path, 1, clock) as (quotas,):
        quotas.follow(acme(cpu_s_per_day=10, max_instances=1))
        quotas.set_live("acme", instances=1, memory_bytes=5)
        quotas.count("acme", cpu_ns=10 * 10**9, egress_bytes=0)
    with workers(tmp_path, 1, clock) as (quotas,):
        quotas.follow(acme(cpu_s_per_day=10, max_instances=1))
        assert quotas.over_live("acme", 0) is None  # its instances are gone
        with pytest.raises(QuotaExceeded):
            quotas.admit("acme")


def test_the_ledger_is_believed_where_it_says_more(tmp_path):
    clock = Clock()
    day = int(clock.now // DAY_S)
    with workers(tmp_path, 1, clock) as (quotas,):
        quotas.follow(acme(cpu_s_per_day=10))
        quotas.ledger_says({"acme": Today(day - 1, 99 * 10**9, 0), "stranger": Today(day)})
        quotas.admit("acme")
        quotas.ledger_says({"acme": Today(day, 10 * 10**9, 0)})
        with pytest.raises(QuotaExceeded):
            quotas.admit("acme")
        quotas.follow(acme(cpu_s_per_day=20))
        quotas.admit("acme")
        quotas.count("acme", cpu_ns=20 * 10**9, egress_bytes=0)
        with pytest.raises(QuotaExceeded):
            quotas.admit("acme")


def test_a_suspended_tenant_is_refused_and_others_are_not(tmp_path):
    with workers(tmp_path, 1) as (quotas,):
        quotas.follow({TenantName("acme"): Tenant(TenantName("acme"), suspended=True)})
        with pytest.raises(TenantSuspended):
            quotas.admit("acme")
        quotas.admit("other")
        quotas.follow({})
        quotas.admit("acme")


def test_live_instances_are_counted_over_all_workers(tmp_path):
    with workers(tmp_path, 2) as (one, other):
        for quotas in (one, other):
            quotas.follow(acme(max_instances=3, memory_mib=100))
        one.set_live("acme", instances=2, memory_bytes=60 * MIB)
        assert other.over_live("acme", 40 * MIB) is None
        assert other.over_live("acme", 41 * MIB).details["quota"] == "memory_mib"
        other.set_live("acme", instances=1, memory_bytes=0)
        assert one.over_live("acme", 0).details["quota"] == "max_instances"


def test_room_is_asked_for_and_given_once(tmp_path):
    with workers(tmp_path, 2) as (one, other):
        for quotas in (one, other):
            quotas.follow(acme(max_instances=1))
        assert not other.room_wanted("acme")
        one.want_room("acme")
        assert other.room_wanted("acme")
        assert not other.room_wanted("acme")
        assert not one.room_wanted("acme")
        assert not one.room_wanted("nobody")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "A"])
def test_a_tenants_file_lies_in_its_folder(tmp_path, name):
    with pytest.raises(NameInvalid):
        TenantUse(tmp_path, name, worker=0, workers=1)


def test_a_row_has_one_writer_and_holds_what_fits(tmp_path):
    one, other = (TenantUse(tmp_path, "acme", worker=n, workers=2) for n in range(2))
    one.add(REQUESTS, 5)
    other.add(REQUESTS, 2**70)
    other.set(INSTANCES, -3)
    assert one.total(REQUESTS) == 5 + 2**64 - 1
    assert (one.others(REQUESTS), other.others(REQUESTS)) == (2**64 - 1, 5)
    assert one.total(INSTANCES) == 0
    one.begin_day(7)
    one.add(CPU_NS, 9)
    assert (one.of_day(CPU_NS, 7), one.of_day(CPU_NS, 8), one.total(DAY)) == (9, 0, 7)
    assert (tmp_path / "acme").stat().st_mode & 0o777 == 0o600
    one.close()
    other.close()


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 100), st.integers(0, 100))
def test_an_amount_of_the_day_is_over_when_it_is_used_up(cpu_ns, egress, cpu_s, egress_mib):
    error = over_today(
        "a", Quota(cpu_s_per_day=cpu_s, egress_mib_per_day=egress_mib), cpu_ns, egress
    )
    over = (cpu_s and cpu_ns >= cpu_s * 10**9) or (egress_mib and egress >= egress_mib * MIB)
    assert bool(error) == bool(over)
    if error is not None:
        assert error.details["used"] >= error.details["limit"] > 0


@given(
    st.integers(0, 50),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 50),
    st.integers(0, 500),
)
def test_nothing_live_is_ever_beyond_the_quota(instances, memory, need, most, memory_mib):
    error = over_live(
        "a", Quota(max_instances=most, memory_mib=memory_mib), instances, memory, need
    )
    if error is None:
        assert not most or instances + 1 <= most
        assert not memory_mib or memory + need <= memory_mib * MIB
