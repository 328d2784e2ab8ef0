import os

from hypothesis import given
from hypothesis import strategies as st

from isopod.server.watchdog import LOOK_S, Watch, waited_for_cpu_s


def looks(watch: Watch, seconds: float, *, beaten: bool = False, waited: float = 0.0) -> bool:
    """Looks at the usual pace; `waited`: the part of the time that it waited for a CPU."""
    stalled = False
    for _ in range(round(seconds / LOOK_S)):
        stalled = watch.look(
            watch.now_s + LOOK_S, beaten=beaten, waited_s=watch.waited_s + waited * LOOK_S
        )
    return stalled


def test_a_process_that_beats_is_never_stalled():
    assert not looks(Watch(10, 0.0), 3600, beaten=True)


def test_a_silent_one_is_stalled_after_its_limit_and_not_before():
    watch = Watch(10, 0.0)
    assert not looks(watch, 9.5)
    assert looks(watch, 0.5)


def test_one_beat_ends_the_silence():
    watch = Watch(10, 0.0)
    looks(watch, 9.5)
    watch.look(watch.now_s + LOOK_S, beaten=True, waited_s=0)
    assert not looks(watch, 9.5)


def test_a_machine_that_slept_for_an_hour_makes_nobody_stalled():
    watch = Watch(10, 0.0)
    looks(watch, 9.0)
    assert not watch.look(watch.now_s + 3600, beaten=False, waited_s=0)


def test_time_in_which_it_wanted_a_cpu_and_got_none_does_not_count():
    assert not looks(Watch(10, 0.0), 100, waited=0.95)
    assert looks(Watch(10, 0.0), 100, waited=0.5)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 100))))
def test_silence_is_never_longer_than_the_time_since_the_last_beat(steps):
    watch, last_beat = Watch(10, 0.0), 0.0
    for gap, beaten, waited in steps:
        now = watch.now_s + gap
        last_beat = now if beaten else last_beat
        watch.look(now, beaten=beaten, waited_s=watch.waited_s + waited)
        assert watch.silent_s <= now - last_beat + 1e-6


def test_the_kernel_tells_how_long_a_process_waited():
    assert waited_for_cpu_s(os.getpid()) >= 0
    assert waited_for_cpu_s(2**22 + 1) == 0.0
