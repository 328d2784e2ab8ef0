"""Equal parts for each share, whatever it does; the queue is a plain structure, so is its test."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from isopod.engine.run_queue import CREDIT_S, WOKEN_IN_A_ROW, RunQueue

SLICE_S = 0.004  # no slice is longer in these tests
SPENT = st.floats(1e-6, SLICE_S)
COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=5)


def busy(counts: list[int], *, computes: bool = True) -> RunQueue[tuple[str, int]]:
    """A queue of so many guests per share."""
    queue: RunQueue[tuple[str, int]] = RunQueue()
    for number, count in enumerate(counts):
        for guest in range(count):
            queue.push((f"s{number}", guest), f"s{number}", computes=computes)
    return queue


def run(queue: RunQueue, spent: list[float], used: Counter, *, computes: bool = True) -> None:
    """So many slices, of guests that all want to go on."""
    for cost in spent:
        guest = queue.pop()
        assert guest is not None
        queue.push(guest, guest[0], computes=computes)
        queue.charge(cost)
        used[guest[0]] += cost


@given(COUNTS, st.lists(SPENT, min_size=1, max_size=300), st.booleans())
def test_the_number_of_a_shares_guests_does_not_matter(counts, spent, computes):
    queue, used = busy(counts, computes=computes), Counter()
    run(queue, spent, used, computes=computes)
    parts = [used[f"s{number}"] for number in range(len(counts))]
    # The bound of start-time fair queueing: one longest slice of each of the two.
    assert max(parts) - min(parts) <= 2 * SLICE_S


@given(
    COUNTS, st.lists(SPENT, min_size=50, max_size=200), st.lists(SPENT, min_size=20, max_size=80)
)
def test_who_slept_has_saved_up_a_small_credit_only(counts, before, after):
    queue, used = busy(counts), Counter()
    run(queue, before, used)
    queue.push(("late", 0), "late", computes=True)
    used.clear()
    run(queue, after, used)
    least = min(used[f"s{number}"] for number in range(len(counts)))
    assert used["late"] <= least + CREDIT_S + 2 * SLICE_S


@given(COUNTS, st.lists(SPENT, min_size=50, max_size=200))
def test_who_slept_is_next_but_for_the_others_debts(counts, before):
    queue = busy(counts)
    run(queue, before, Counter())
    queue.push(("late", 0), "late", computes=False)
    guest = queue.pop()
    assert guest == ("late", 0)


@given(
    st.lists(SPENT, min_size=200, max_size=400), st.lists(st.integers(1, 9), min_size=1, max_size=8)
)
def test_coming_and_going_gains_nothing_but_the_credit(spent, pauses):
    """Each share but one pauses again and again, after every so many of its slices, and comes back
    after the next slice of another. The last always wants to run."""
    queue: RunQueue[str] = RunQueue()
    used, slices, absent = Counter(), Counter(), ""
    every = {f"s{number}": pause for number, pause in enumerate(pauses)}
    for share in [*every, "waits"]:
        queue.push(share, share, computes=True)
    for cost in spent:
        share = queue.pop()
        assert share is not None
        used[share] += cost
        slices[share] += 1
        returns, absent = absent, ""
        if share in every and slices[share] % every[share] == 0:
            absent = share
        else:
            queue.push(share, share, computes=True)
        queue.charge(cost)
        if returns:
            queue.push(returns, returns, computes=False)
    for share in every:
        assert used[share] <= used["waits"] + CREDIT_S + 2 * SLICE_S


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans(), SPENT), max_size=200)
)
def test_no_guest_is_lost_and_none_runs_twice(steps):
    queue: RunQueue[int] = RunQueue()
    pushed, popped = [], []
    for number, (share, computes, pops, cost) in enumerate(steps):
        queue.push(number, share, computes=computes)
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
    queue.push("computes", "s", computes=True)
    for number in range(3 * WOKEN_IN_A_ROW):
        queue.push(f"woken {number}", "s", computes=False)
    order = []
    while queue:
        order.append(queue.pop())
        queue.charge(0.0001)
    assert order.index("computes") == WOKEN_IN_A_ROW
    order.remove("computes")
    assert order == [f"woken {number}" for number in range(3 * WOKEN_IN_A_ROW)]


def test_what_one_used_alone_is_not_held_against_it():
    queue, used = busy([1]), Counter()
    run(queue, [SLICE_S] * 1000, used)
    queue.push(("new", 0), "new", computes=True)
    used.clear()
    run(queue, [SLICE_S] * 100, used)
    assert abs(used["s0"] - used["new"]) <= CREDIT_S + 2 * SLICE_S


def test_shares_that_are_gone_are_forgotten():
    queue: RunQueue[int] = RunQueue()
    for number in range(10_000):
        queue.push(number, f"tenant {number}", computes=False)
        assert queue.pop() == number
        queue.charge(SLICE_S)
    assert queue.shares < 1000


def test_an_empty_queue_can_be_cleared_and_used_again():
    queue = busy([3, 3])
    queue.pop()
    queue.clear()
    queue.charge(1.0)
    assert not queue
    assert queue.pop() is None
    queue.push(("s0", 1), "s0", computes=False)
    assert queue.pop() == ("s0", 1)
