"""Equal parts for each tenant, and for each of its apps, whatever they do; the queue is a plain
structure, so is its test."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from isopod.engine.run_queue import CREDIT_S, WOKEN_IN_A_ROW, RunQueue

SLICE_S = 0.004  # no slice is longer in these tests
SPENT = st.floats(1e-6, SLICE_S)
LEVELS = st.sampled_from([0, 1])  # tenants, or the apps of one
COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=5)


def share(name: str, level: int) -> tuple[str, str]:
    return (name, "app") if level == 0 else ("tenant", name)


def busy(counts: list[int], level: int, *, computes: bool = True) -> RunQueue[tuple[str, int]]:
    """A queue of so many guests per share."""
    queue: RunQueue[tuple[str, int]] = RunQueue()
    for number, count in enumerate(counts):
        for guest in range(count):
            queue.push((f"s{number}", guest), share(f"s{number}", level), computes=computes)
    return queue


def run(
    queue: RunQueue, spent: list[float], used: Counter, level: int, *, computes: bool = True
) -> None:
    """So many slices, of guests that all want to go on."""
    for cost in spent:
        guest = queue.pop()
        assert guest is not None
        queue.push(guest, share(guest[0], level), computes=computes)
        queue.charge(cost)
        used[guest[0]] += cost


@given(COUNTS, st.lists(SPENT, min_size=1, max_size=300), LEVELS, st.booleans())
def test_the_number_of_a_shares_guests_does_not_matter(counts, spent, level, computes):
    queue, used = busy(counts, level, computes=computes), Counter()
    run(queue, spent, used, level, computes=computes)
    parts = [used[f"s{number}"] for number in range(len(counts))]
    # The bound of start-time fair queueing: one longest slice of each of the two.
    assert max(parts) - min(parts) <= 2 * SLICE_S


@given(
    COUNTS,
    st.lists(SPENT, min_size=50, max_size=200),
    st.lists(SPENT, min_size=20, max_size=80),
    LEVELS,
)
def test_who_slept_has_saved_up_a_small_credit_only(counts, before, after, level):
    queue, used = busy(counts, level), Counter()
    run(queue, before, used, level)
    queue.push(("late", 0), share("late", level), computes=True)
    used.clear()
    run(queue, after, used, level)
    least = min(used[f"s{number}"] for number in range(len(counts)))
    assert used["late"] <= least + CREDIT_S + 2 * SLICE_S


@given(COUNTS, st.lists(SPENT, min_size=50, max_size=200), LEVELS)
def test_who_slept_is_next_but_for_the_others_debts(counts, before, level):
    queue = busy(counts, level)
    run(queue, before, Counter(), level)
    queue.push(("late", 0), share("late", level), computes=False)
    guest = queue.pop()
    assert guest == ("late", 0)


@given(
    st.lists(SPENT, min_size=200, max_size=400),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    LEVELS,
)
def test_coming_and_going_gains_nothing_but_the_credit(spent, pauses, level):
    """Each share but one pauses again and again, after every so many of its slices, and comes back
    after the next slice of another. The last always wants to run."""
    queue: RunQueue[str] = RunQueue()
    used, slices, absent = Counter(), Counter(), ""
    every = {f"s{number}": pause for number, pause in enumerate(pauses)}
    for name in [*every, "waits"]:
        queue.push(name, share(name, level), computes=True)
    for cost in spent:
        name = queue.pop()
        assert name is not None
        used[name] += cost
        slices[name] += 1
        returns, absent = absent, ""
        if name in every and slices[name] % every[name] == 0:
            absent = name
        else:
            queue.push(name, share(name, level), computes=True)
        queue.charge(cost)
        if returns:
            queue.push(returns, share(returns, level), computes=False)
    for name in every:
        assert used[name] <= used["waits"] + CREDIT_S + 2 * SLICE_S


@given(
    st.lists(
        st.tuples(
            st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")),
            st.booleans(),
            st.booleans(),
            SPENT,
        ),
        max_size=200,
    )
)
def test_no_guest_is_lost_and_none_runs_twice(steps):
    queue: RunQueue[int] = RunQueue()
    pushed, popped = [], []
    for number, (whose, computes, pops, cost) in enumerate(steps):
        queue.push(number, whose, computes=computes)
        pushed.append(number)
        if pops:
            popped.append(queue.pop())
            queue.charge(cost)
        assert len(queue) == len(pushed) - len(popped)
    while queue:
        popped.append(queue.pop())
        queue.charge(SLICE_S)
    assert sorted(popped) == pushed
    assert queue.pop() is None
    queue.charge(1.0)


def test_within_a_share_the_woken_go_first_and_in_order_but_not_for_ever():
    queue: RunQueue[str] = RunQueue()
    queue.push("computes", ("s", "a"), computes=True)
    for number in range(3 * WOKEN_IN_A_ROW):
        queue.push(f"woken {number}", ("s", "a"), computes=False)
    order = []
    while queue:
        order.append(queue.pop())
        queue.charge(0.0001)
    assert order.index("computes") == WOKEN_IN_A_ROW
    order.remove("computes")
    assert order == [f"woken {number}" for number in range(3 * WOKEN_IN_A_ROW)]


def test_an_app_waits_for_none_of_its_neighbours_woken_guests_and_gains_nothing_by_being_two():
    queue: RunQueue[str] = RunQueue()
    for _ in range(1000):
        queue.push("crowd", ("acme", "crowd"), computes=False)
        queue.push("other", ("globex", "app"), computes=False)
    for _ in range(10):
        queue.pop()
        queue.charge(SLICE_S)
    queue.push("probe", ("acme", "probe"), computes=False)
    order = []
    while len(order) < 6:
        order.append(queue.pop())
        queue.charge(SLICE_S)
    assert "probe" in order[:3]
    assert 2 <= order.count("other") <= 4


@given(LEVELS)
def test_what_one_used_alone_is_not_held_against_it(level):
    queue, used = busy([1], level), Counter()
    run(queue, [SLICE_S] * 1000, used, level)
    queue.push(("new", 0), share("new", level), computes=True)
    used.clear()
    run(queue, [SLICE_S] * 100, used, level)
    assert abs(used["s0"] - used["new"]) <= CREDIT_S + 2 * SLICE_S


def test_shares_that_are_gone_are_forgotten():
    queue: RunQueue[int] = RunQueue()
    for number in range(10_000):
        queue.push(number, (f"tenant {number}", "app"), computes=False)
        assert queue.pop() == number
        queue.charge(SLICE_S)
        queue.push(number, ("tenant", f"app {number}"), computes=False)
        assert queue.pop() == number
        queue.charge(SLICE_S)
    assert len(queue._tenants.parts) < 1000
    assert len(queue._tenants.parts["tenant"].apps.parts) < 1000


def test_an_empty_queue_can_be_cleared_and_used_again():
    queue = busy([3, 3], 0)
    queue.pop()
    queue.clear()
    queue.charge(1.0)
    assert not queue
    assert queue.pop() is None
    queue.push(("s0", 1), ("s0", "app"), computes=False)
    assert queue.pop() == ("s0", 1)
