from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.pool import PATIENCE_S, IdleInstance, PoolView, should_start, to_evict

SMALL = st.integers(0, 12)
VIEWS = st.builds(
    PoolView,
    waiting=SMALL,
    stalled_s=st.floats(0, 10),
    starting=SMALL,
    live=SMALL,
    runnable=SMALL,
    max_instances=st.integers(1, 12),
)
IDLE = st.lists(
    st.builds(
        IdleInstance,
        id=st.uuids().map(str),
        idle_s=st.floats(0, 1000),
        memory_bytes=st.integers(0, 1000),
    ),
    max_size=10,
)


@given(VIEWS)
def test_an_instance_starts_only_for_one_who_waits_and_within_the_limit(view):
    if should_start(view):
        assert view.waiting > 0
        assert view.live < view.max_instances
        assert view.starting == 0


@given(VIEWS)
def test_nobody_waits_for_ever(view):
    alone = view.starting == 0 and view.live < view.max_instances and view.waiting > 0
    if alone and (view.runnable == 0 or view.stalled_s >= PATIENCE_S):
        assert should_start(view)


@given(IDLE, st.integers(0, 5000), st.integers(0, 1000), st.integers(0, 5000))
def test_no_more_ends_than_must_and_the_least_recently_used_first(idle, used, need, budget):
    chosen = to_evict(idle, used_bytes=used, need_bytes=need, budget_bytes=budget)
    total = sum(one.memory_bytes for one in idle)
    if chosen is None:
        assert used + need - total > budget
        return
    by_id = {one.id: one for one in idle}
    freed = [by_id[one].memory_bytes for one in chosen]
    assert used + need - sum(freed) <= budget
    if chosen:
        assert used + need - sum(freed[:-1]) > budget
        last = by_id[chosen[-1]].idle_s
        assert all(one.idle_s <= last for one in idle if one.id not in chosen)
