from hypothesis import given
from hypothesis import strategies as st

from isopod.gateway.shares import Shares, Totals

steps = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "look"]), st.integers(0, 1 << 40)), max_size=60
)


@given(steps)
def test_nothing_is_counted_twice_or_lost(events):
    """Whatever began and ended when: the parts of all requests are all that was used."""
    shares, total, billed, open_now = Shares(), 0, [0, 0, 0, 0], []
    ended = 0
    for what, spent in [*events, *[("end", 0)] * 60, ("begin", 0), ("end", 0)]:
        total += spent
        totals = Totals(total, 2 * total, 3 * total, 5 * total)
        if what == "begin":
            open_now.append(shares.begin(totals))
        elif what == "look":
            shares.so_far(totals)
        elif open_now:
            part = shares.end(totals, open_now.pop(0))
            values = (part.cpu_ns, part.host_ns, part.sent_bytes, part.memory_byte_ns)
            assert min(values) >= 0
            billed = [before + now for before, now in zip(billed, values, strict=True)]
            ended += 1
    assert shares.requests == 0
    assert billed == [total, 2 * total, 3 * total, 5 * total]


def test_what_is_used_meanwhile_is_divided_equally():
    shares = Shares()
    first = shares.begin(Totals())
    second = shares.begin(Totals(100))
    assert shares.end(Totals(300), second) == Totals(100)
    assert shares.end(Totals(310), first) == Totals(210)
    assert shares.take(Totals(350)) == Totals(40)
    third = shares.begin(Totals(360))
    assert shares.end(Totals(360), third) == Totals(10)
