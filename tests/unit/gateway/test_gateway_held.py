from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.held import HeldMemory

events = st.lists(
    st.tuples(
        st.sampled_from(["look", "begin", "end", "take"]),
        st.integers(0, 1 << 30),
        st.integers(0, 10**11),
    ),
    max_size=40,
)


@given(events)
def test_each_moment_is_given_out_once(steps):
    """Whatever the order of looks and requests: idle and request time together are all of it."""
    held = HeldMemory(0)
    now, size, whole, given_out, parts = 0, 0, 0, 0, 0
    for what, new_size, spent in [*steps, ("end", 0, 0), ("take", 0, 0)]:
        if what == "take":
            given_out += held.take_idle()
            parts += 1
            continue
        now += spent
        whole += size * spent
        if what == "begin":
            held.begin(now)
        elif what == "look":
            held.look(new_size, now)
            size = new_size
        else:
            given_out += held.end(new_size, now)
            size = new_size
            parts += 1
    assert 0 <= whole // 1_000_000 - given_out <= parts


SECOND = 10**9


def test_memory_in_a_request_is_the_requests_and_the_rest_is_idle():
    held = HeldMemory(0)
    held.look(1000, 10 * SECOND)  # it started: nothing before
    held.begin(12 * SECOND)
    assert held.end(3000, 13 * SECOND) == 1000 * 1000  # grown meanwhile: counted from now on
    held.look(3000, 15 * SECOND)
    assert held.take_idle() == (2 * 1000 + 2 * 3000) * 1000
    assert held.take_idle() == 0


def test_a_guest_that_is_gone_holds_nothing():
    held = HeldMemory(0)
    held.look(1000, 0)
    held.begin(0)
    assert held.end(-50, SECOND) == 1_000_000
    held.look(-50, 9 * SECOND)
    assert held.take_idle() == 0
