import struct

from hypothesis import given
from hypothesis import strategies as st

from isopod.engine import wasi

REALTIME_NS, MONOTONIC_NS = 1_700_000_000_000_000_000, 5_000_000_000
U64 = st.integers(0, 2**64 - 1)


def subscription(*, userdata=7, tag=0, which=1, timeout=0, flags=0) -> bytes:
    packed = struct.pack("<QB7xI4xQQH6x", userdata, tag, which, timeout, 0, flags)
    assert len(packed) == wasi.SUBSCRIPTION_BYTES == 48
    return packed


def plan(*subscriptions: bytes, step_ns: int = 1, late_ns: int = 0) -> wasi.PollPlan:
    return wasi.plan_poll(
        b"".join(subscriptions),
        realtime_ns=REALTIME_NS + late_ns,
        monotonic_ns=MONOTONIC_NS + late_ns,
        step_ns=step_ns,
    )


def userdata_of(planned: wasi.PollPlan) -> list[int]:
    return [struct.unpack_from("<Q", event)[0] for event in split(planned.events)]


def split(events: bytes) -> list[bytes]:
    size = wasi.EVENT_BYTES
    return [events[start : start + size] for start in range(0, len(events), size)]


def test_the_shortest_sleep_wins():
    planned = plan(
        subscription(userdata=1, timeout=3_000_000_000),
        subscription(userdata=2, timeout=1_000_000_000),
        subscription(userdata=3, which=0, timeout=1_000_000_000),
    )
    assert planned.errno == 0
    assert planned.wait_s == 1.0
    assert userdata_of(planned) == [2, 3]


def test_absolute_times_count_from_their_own_clock():
    assert plan(subscription(timeout=MONOTONIC_NS + 500_000_000, flags=1)).wait_s == 0.5
    assert plan(subscription(which=0, timeout=REALTIME_NS + 2_000_000_000, flags=1)).wait_s == 2.0
    assert plan(subscription(timeout=1, flags=1)).wait_s == 0  # is over


def test_waits_are_whole_steps_of_the_guests_clock():
    assert plan(subscription(timeout=1), step_ns=1_000_000).wait_s == 0.001
    assert plan(subscription(timeout=1_000_001), step_ns=1_000_000).wait_s == 0.002
    assert plan(subscription(timeout=0), step_ns=1_000_000).wait_s == 0
    # Until a time: over when the guest's own clock, rounded down, says so.
    until = subscription(timeout=MONOTONIC_NS + 2_500_000, flags=1)
    assert plan(until, step_ns=1_000_000, late_ns=1_900_000).wait_s == 0.002


def test_files_are_ready_at_once_whatever_the_clocks_say():
    planned = plan(
        subscription(userdata=1, timeout=10**18),
        subscription(userdata=2, tag=1, which=0),
        subscription(userdata=3, tag=2, which=1),
    )
    assert planned.wait_s == 0
    assert userdata_of(planned) == [2, 3]


def test_what_cannot_be_waited_for_is_refused():
    assert plan().errno == wasi.EINVAL
    assert plan(subscription(tag=3)).errno == wasi.EINVAL
    assert plan(subscription(which=9)).errno == wasi.EINVAL


@given(
    st.lists(
        st.builds(
            subscription,
            userdata=U64,
            tag=st.integers(0, 3),
            which=st.integers(0, 3),
            timeout=U64,
            flags=st.integers(0, 3),
        ),
        max_size=20,
    )
)
def test_every_answer_fits_what_was_asked(subscriptions):
    planned = plan(*subscriptions)
    events = split(planned.events)
    assert len(events) == planned.count <= len(subscriptions)
    assert all(len(event) == wasi.EVENT_BYTES for event in events)
    assert planned.wait_s >= 0
    assert (planned.count > 0) == (planned.errno == 0)
    asked = {struct.unpack_from("<Q", one)[0] for one in subscriptions}
    assert set(userdata_of(planned)) <= asked


@given(st.binary(max_size=20 * 48).map(lambda data: data[: len(data) // 48 * 48]))
def test_no_bytes_surprise_it(subscriptions):
    wasi.plan_poll(subscriptions, realtime_ns=1, monotonic_ns=2, step_ns=1_000_000)


def test_a_descriptor_that_is_not_ready_is_waited_for_beside_the_clocks():
    reads = subscription(userdata=1, tag=1, which=512)
    writes = subscription(userdata=2, tag=2, which=512)
    clock = subscription(userdata=3, timeout=1_000_000_000)

    def asked(*wanted: bytes, ready: int = 0, errno: int = 0) -> wasi.PollPlan:
        return wasi.plan_poll(
            b"".join(wanted), realtime_ns=REALTIME_NS, monotonic_ns=MONOTONIC_NS, step_ns=1,
            polled=lambda _fd, mask: errno if mask & ready else None,
        )  # fmt: skip

    assert asked(reads, writes).wait_s == float("inf")
    assert asked(reads, writes).awaited == {512: 3} and not asked(reads).events
    waits = asked(reads, clock)
    assert (waits.awaited, waits.wait_s, userdata_of(waits)) == ({512: 1}, 1.0, [3])
    now = asked(reads, writes, clock, ready=2, errno=8)
    assert (now.awaited, now.wait_s, userdata_of(now)) == ({}, 0.0, [2])
    assert struct.unpack_from("<QHB", now.events) == (2, 8, 2)
