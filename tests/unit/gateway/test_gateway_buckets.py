from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.buckets import TokenBucket

STEPS = st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 5)), max_size=60)


@given(STEPS, st.floats(0.5, 20), st.floats(1, 20))
def test_never_more_passes_than_the_rate_and_one_burst(steps, rate, burst):
    bucket, now, passed = TokenBucket(rate, burst, 0.0), 0.0, 0.0
    for pause, tokens in steps:
        now += pause
        if bucket.left(now) >= tokens:
            bucket.spend(tokens)
            passed += tokens
    assert passed <= burst + rate * now + 1e-6


@given(STEPS, st.floats(0.5, 20), st.floats(1, 20), st.floats(0.1, 1))
def test_who_waits_as_long_as_told_gets_through(steps, rate, burst, wanted):
    bucket, now = TokenBucket(rate, burst, 0.0), 0.0
    for pause, tokens in steps:
        now += pause
        bucket.left(now)
        bucket.spend(tokens)
    now += bucket.wait_s(wanted)
    assert bucket.left(now) >= wanted - 1e-6


def test_a_clock_that_goes_back_gives_nothing():
    bucket = TokenBucket(10, 10, 100.0)
    assert bucket.left(100.0) == 10
    bucket.spend(10)
    assert bucket.left(50.0) == 0
    assert bucket.left(100.5) == 5
