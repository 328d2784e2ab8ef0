from hypothesis import given
from hypothesis import strategies as st

from isopod.control.buckets import Buckets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_at_once_and_then_so_many_a_second():
    clock = Clock()
    buckets = Buckets(burst=3, per_s=2, keys=10, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait_s("a") == 0.5
    assert buckets.take("b") == 0
    clock.now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]
    clock.now = 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 10)), max_size=200))
def test_no_more_pass_than_the_burst_and_the_rate_allow_and_memory_is_bounded(asked):
    clock = Clock()
    buckets = Buckets(burst=5, per_s=1, keys=20, clock=clock)
    passed: list[float] = []
    for key, pause in asked:
        clock.now += pause
        if buckets.take(key) == 0 and key == 0:
            passed.append(clock.now)
        assert len(buckets._left) <= 20
    if len({key for key, _ in asked}) <= 20:
        for at in passed:
            assert sum(at <= other <= at + 3 for other in passed) <= 5 + 3 + 1
