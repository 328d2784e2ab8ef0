from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.pool import LONG_PATIENCE_S, PATIENCE_S, PoolView, should_start

SMALL = st.integers(0, 12)
VIEWS = st.builds(
    PoolView,
    waiting=SMALL,
    stalled_s=st.floats(0, 10),
    starting=SMALL,
    live=SMALL,
    runnable=SMALL,
    computed_s=st.floats(0, 1),
    max_instances=st.integers(1, 12),
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
    if alone and (view.runnable == 0 or view.stalled_s >= LONG_PATIENCE_S):
        assert should_start(view)
    if alone and view.computed_s >= PATIENCE_S and view.stalled_s >= PATIENCE_S:
        assert should_start(view)


@given(VIEWS)
def test_no_instance_is_added_to_those_that_wait_for_the_cpu(view):
    if view.runnable and view.computed_s < 0.05 and view.stalled_s < LONG_PATIENCE_S:
        assert not should_start(view)
