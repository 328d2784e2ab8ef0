"""Hostile guests by hand: each ends with an error of ours, and the process lives."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.open_files import assert_back_to, descriptors

from isopod.engine.config import MIB, EngineSettings
from isopod.engine.instance import MAX_FRAME_BYTES, Instance, InstanceSpec, Preopen, State
from isopod.engine.stderr_file import CAPACITY
from isopod.errors import (
    EngineError,
    GuestFailed,
    GuestProtocolError,
    MemoryLimitExceeded,
    StackLimitExceeded,
)

U32 = st.integers(0, 0xFFFFFFFF)
EDGES = st.sampled_from([0, 1, 4, 8, 65535, 65536, 131068, 131071, 131072, 131073, 0xFFFFFFFF])
NUMBER = U32 | EDGES | st.integers(131000, 131100)
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_a_guest_talks_to_its_host_in_frames(guest):
    told = guest("echo", [("turn", b"first")]).run([b"second", bytes(range(256)) * 900, b""])
    assert told.frames == [b"first", b"second", bytes(range(256)) * 900]
    assert told.ended
    assert told.error is None


def test_what_an_entry_returns_is_one_number_or_nothing(guest):
    assert guest("results", [("number", ())]).run([]).instance.returned == 7
    told = guest("results", [("many", ())]).run([])
    assert isinstance(told.error, GuestFailed)  # the engine would write all 40
    assert "returns 40 values" in told.error.message
    told = guest("results", [("reference", ())]).run([])
    assert (told.error, told.instance.returned) == (None, 0)


@MANY
@given(numbers=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), reply=st.binary(max_size=64))
def test_no_lie_about_a_frame_reaches_memory(guest, numbers, reply):
    told = guest("liar", [("tell", struct.pack("<4I", *numbers))]).run([reply])
    pointer, size, out_pointer, out_size = numbers
    fits = pointer + size <= 131072 and out_pointer + 4 <= 131072 and out_size + 4 <= 131072
    if fits and size <= MAX_FRAME_BYTES:
        assert [len(frame) for frame in told.frames] == [size]
        assert told.error is None
    else:
        assert isinstance(told.error, GuestProtocolError)
        assert told.frames == []
    told.instance.close()


@MANY
@given(numbers=st.tuples(NUMBER, NUMBER, st.integers(0, 1100) | NUMBER, NUMBER))
def test_no_lie_about_a_wait_reaches_memory(guest, numbers):
    told = guest("liar", [("wait", struct.pack("<4I", *numbers))]).run()
    assert told.error is None or isinstance(told.error, GuestProtocolError)
    assert told.ended or told.instance.state is State.SLEEPING
    told.instance.close()


@MANY
@given(pointer=NUMBER, size=NUMBER)
def test_no_lie_about_random_bytes_reaches_memory(guest, pointer, size):
    told = guest("liar", [("draw", struct.pack("<2I", pointer, size))]).run()
    assert told.ended
    assert (told.error is None) == (pointer + size <= 131072)
    told.instance.close()


def test_a_frame_has_a_limit(guest):
    numbers = struct.pack("<4I", 0, MAX_FRAME_BYTES + 1, 0, 0)
    told = guest("liar", [("tell", numbers)]).run()
    assert "frame of 8388609 bytes" in told.error.message


@pytest.mark.parametrize(
    ("manner", "error", "text"),
    [
        ("be_empty", MemoryLimitExceeded, "could not allocate"),
        ("be_wild", GuestProtocolError, "outside its memory"),
        ("be_talkative", GuestProtocolError, "from its allocator"),
        ("be_sleepy", GuestProtocolError, "from its allocator"),
        ("be_random", GuestProtocolError, "from its allocator"),
        ("be_broken", GuestFailed, "aborted"),
    ],
)
def test_a_bad_allocator_ends_its_guest(guest, manner, error, text):
    told = guest("allocators", [(manner, None), ("turn", b"payload")]).run()
    assert type(told.error) is error
    assert text in told.error.message

    # The same while a host call is under way: its results must stay those of that call.
    told = guest("allocators", [(manner, None), ("listen", None)]).run([b"reply"])
    assert type(told.error) is error
    assert told.frames == [b""]
    assert told.ended


def test_the_process_serves_on_after_bad_allocators(guest):
    for _ in range(20):
        guest("allocators", [("be_talkative", None), ("listen", None)]).run([b"reply"])
    assert guest("echo", [("turn", b"well?")]).run([b""]).frames == [b"well?"]


def test_an_export_of_another_kind_is_no_function(guest):
    told = guest("allocators", [("a_number", None)]).run()
    assert "exports no 'a_number'" in told.error.message
    assert "exports no 'absent'" in guest("echo", [("absent", None)]).run().error.message


def test_a_function_of_another_type_is_refused(guest):
    told = guest("echo", [("turn", None)]).run()
    assert isinstance(told.error, GuestFailed)


@pytest.mark.parametrize(
    ("export", "error", "text"),
    [
        ("deeper", StackLimitExceeded, "used up its stack"),
        ("abort", GuestFailed, "aborted"),
        ("stray", GuestFailed, "outside its memory"),
        ("divide", GuestFailed, "division by zero"),
        ("no_function", GuestFailed, "indirect call to null"),
        ("leave", GuestFailed, "status 3"),
        ("leave_well", GuestFailed, "status 0"),
        ("grow", MemoryLimitExceeded, "memory limit of 128 MiB"),
        ("out_of_memory", MemoryLimitExceeded, "memory limit of 128 MiB"),
    ],
)
def test_every_fault_is_told_apart(guest, export, error, text):
    told = guest("faults", [(export, None)]).run()
    assert type(told.error) is error
    assert text in told.error.message


def test_memory_stays_within_its_limit(guest):
    told = guest("faults", [("grow", None)], memory_mib=100).run()
    assert 69 * MIB < told.instance.memory_bytes <= 100 * MIB


def test_a_module_that_wants_more_memory_than_allowed_is_not_instantiated(guest):
    told = guest("faults", [("nothing", None)], memory_mib=1).run()
    assert told.error is not None
    assert told.instance.memory_bytes == 0


def test_last_words_are_in_the_error(guest):
    told = guest("faults", [("last_words", None)]).run()
    assert told.error.details["stderr"] == "last words\n"


def test_a_guest_that_shouts_fills_a_bounded_file(guest):
    told = guest("faults", [("shout", None)]).run()
    assert len(told.error.details["stderr"]) <= CAPACITY
    assert told.error.details["stderr"].startswith("last words\nlast words\n")


def test_the_nodes_environment_does_not_reach_a_guest(guest, monkeypatch):
    monkeypatch.setenv("ISOPOD_SECRET", "x")
    assert guest("faults", [("environment", None)]).run().frames == [b"\0\0\0\0"]
    told = guest("faults", [("environment", None)], env=(("A", "1"),)).run()
    assert told.frames == [b"\1\0\0\0"]


def test_much_randomness_comes_in_pieces(guest):
    told = guest("faults", [("draw", None)])
    polls = 0
    while told.instance.state is State.READY:
        told.instance.poll()
        polls += 1
    assert polls > 30  # 64 MiB, a MiB at a time: other guests run in between
    drawn = told.instance.take_frame()
    assert len(set(drawn)) == 256


def test_a_suspended_guest_can_be_closed_twice(guest):
    told = guest("echo", [("turn", b"x")]).run()
    assert told.instance.state is State.CALLING
    told.instance.close()
    told.instance.close()
    assert told.instance.state is State.CLOSED
    assert told.instance.memory_bytes == 0
    with pytest.raises(RuntimeError, match="CLOSED"):
        told.instance.reply(b"late")


def test_a_guest_can_be_closed_before_it_ever_ran(guest):
    told = guest("echo", [("turn", b"x")])
    told.instance.close()
    assert not told.ended


def test_closed_guests_leave_no_descriptor_behind(guest, tmp_path):
    guest("echo", [("turn", b"x")]).run().instance.close()
    guest("faults", [("abort", None)]).run().instance.close()  # a module keeps one for itself
    before = descriptors()
    for _ in range(10):
        guest("echo", [("turn", b"x")]).run().instance.close()
        guest("faults", [("abort", None)]).run().instance.close()
    assert_back_to(before)


def test_a_missing_folder_is_named_and_leaves_nothing_open(linkages, tmp_path):
    linkage = linkages("echo")
    before = descriptors()
    missing = Preopen(tmp_path / "missing", "/app")
    spec = InstanceSpec(argv=("x",), env=(), preopens=(missing,), memory_bytes=MIB)
    with pytest.raises(EngineError, match="missing"):
        Instance(linkage, spec)
    assert_back_to(before)


def test_an_error_of_the_node_inside_a_call_ends_only_that_guest(guest, monkeypatch):
    monkeypatch.setattr(Instance, "on_poll_oneoff", lambda *_: 1 / 0)
    told = guest("liar", [("wait", bytes(16))]).run()
    assert isinstance(told.error, EngineError)
    assert isinstance(told.error.__cause__, ZeroDivisionError)


def test_an_error_of_the_node_beside_a_call_ends_only_that_guest(guest, monkeypatch):
    monkeypatch.setattr(Instance, "_begin_instantiate", lambda _: 1 / 0)
    told = guest("echo", [("turn", b"x")]).run()
    assert isinstance(told.error, EngineError)


def test_stacks_hold_deep_recursion():
    assert EngineSettings().fiber_stack_bytes > EngineSettings().wasm_stack_bytes >= 8 * MIB
