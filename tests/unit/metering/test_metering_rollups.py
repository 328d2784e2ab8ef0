import itertools

from hypothesis import given
from hypothesis import strategies as st

from isopod.metering.rollups import DAY, GRAINS, HOUR, MINUTE, Key, Sums, coarser, spans, widened

moments = st.floats(1.7e9, 1.7e9 + 5 * DAY)


@given(moments, moments, st.floats(1.7e9 - DAY, 1.7e9 + 6 * DAY))
def test_spans_cover_an_interval_and_each_moment_once(since, until, minutes_from):
    found = spans(since, until, minutes_from=minutes_from)
    if since >= until:
        assert sum(span.until - span.since for span in found) <= HOUR
        return
    for one, following in itertools.pairwise(found):
        assert one.until == following.since
    assert found[0].since <= since < found[0].since + HOUR
    assert found[-1].until - HOUR < until <= found[-1].until
    if since >= minutes_from:
        assert since - found[0].since < MINUTE and found[-1].until - until < MINUTE
    for span in found:
        assert span.grain in GRAINS and span.since < span.until
        assert span.since % span.grain == span.until % span.grain == 0
        assert span.grain != MINUTE or span.until > minutes_from - HOUR
    assert len(found) <= 5


def test_whole_days_need_no_hours():
    assert [span.grain for span in spans(0, 3 * DAY)] == [DAY]
    assert [span.grain for span in spans(59, DAY + HOUR + 1)] == [DAY, HOUR, MINUTE]
    assert [(s.grain, s.since, s.until) for s in spans(60, 180)] == [(MINUTE, 60, 180)]


def test_where_no_hours_are_kept_whole_days_answer():
    found = spans(DAY + 60, 5 * DAY + 60, minutes_from=4 * DAY, hours_from=3 * DAY)
    assert [(s.grain, s.since, s.until) for s in found] == [
        (DAY, DAY, 5 * DAY),
        (MINUTE, 5 * DAY, 5 * DAY + 60),
    ]


def test_an_interval_is_widened_to_what_it_touches():
    assert widened(HOUR + 1, HOUR + 2, HOUR).since == HOUR
    assert widened(HOUR + 1, 2 * HOUR, HOUR).until == 2 * HOUR


@given(st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(0, 10**18)), max_size=30))
def test_a_coarser_grain_has_the_same_sums(records):
    minutes = [
        (Key("default", "hello", 1, at // 60 * 60), Sums(requests=1, cpu_ns=cpu))
        for at, cpu in records
    ]
    days = coarser(coarser(minutes, HOUR).items(), DAY)
    assert sum(one.cpu_ns for one in days.values()) == sum(cpu for _, cpu in records)
    assert sum(one.requests for one in days.values()) == len(records)
    assert all(key.start % DAY == 0 for key in days)


def test_the_peak_of_several_is_the_highest():
    sums = Sums(peak_memory_bytes=5)
    sums.add(Sums(peak_memory_bytes=3, requests=2))
    assert (sums.peak_memory_bytes, sums.requests) == (5, 2)
