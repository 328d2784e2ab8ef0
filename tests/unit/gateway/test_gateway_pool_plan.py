from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.pool import PATIENCE_S, PoolView, should_start

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
