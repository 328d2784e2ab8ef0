"""Numbers that lie, in every call of WASI that has a function of ours in between; `host.call`,
`poll_oneoff` and `random_get` have theirs in tests/unit/engine/test_engine_instance.py, and all of
them the fuzzer."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isopod.engine.relay import SIGNATURES
from isopod.errors import EngineError, GuestFailed, GuestProtocolError
from tools.fuzz import wasi

attack = pytest.mark.attack
MEMORY = wasi.PAGES * 65536
EDGES = st.sampled_from(
    [0, 1, 3, 4, 5, 8, 64, 4096, 65535, MEMORY - 8, MEMORY - 1, MEMORY, MEMORY + 1,
     2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1, 2**63, 2**64 - 1]
)  # fmt: skip
NUMBER = EDGES | st.integers(0, 40) | st.integers(0, 2**64 - 1)
OURS = [*SIGNATURES, "clock_time_get", "clock_res_get"]
STEP = st.tuples(st.sampled_from(OURS), st.lists(NUMBER, min_size=9, max_size=9))
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def program(steps) -> bytes:
    packed = b"".join(struct.pack("<10Q", wasi.NAMES.index(name), *args) for name, args in steps)
    return struct.pack("<Q", len(packed)) + packed


@MANY
@given(steps=st.lists(STEP, min_size=1, max_size=6))
@attack(
    "lying pointers, lengths, descriptors and offsets in every file and clock call (hypothesis)",
    "an errno, or the guest is ended; not a byte outside of its memory and folders",
)
def test_no_number_reaches_what_is_not_the_guests(arena, folders, steps):
    instance = arena.instance(arena.linkage(wasi.machine()), folders=folders, disk_mib=1)
    got = arena.attack(instance, [("run", program(steps))], deadline_s=300)
    assert got.ended
    assert got.error is None or isinstance(got.error, GuestFailed | GuestProtocolError)
    assert not isinstance(got.error, EngineError)
    assert {one.name for one in folders["app"].parent.iterdir()} == {"app", "tmp", "secret"}
    assert [one.name for one in folders["app"].iterdir()] == ["file"]
    arena.close_guests()


@pytest.mark.parametrize("name", OURS)
@attack(
    "each file and clock call with all its numbers at their largest",
    "an errno, or the guest is ended",
)
def test_the_largest_numbers(arena, folders, name):
    instance = arena.instance(arena.linkage(wasi.machine()), folders=folders)
    got = arena.attack(instance, [("run", program([(name, [2**64 - 1] * 9)]))], deadline_s=300)
    assert got.ended
    assert not isinstance(got.error, EngineError)


@attack(
    "a table of buffers that overlaps what a write changes in it",
    "the guest's own memory, its own confusion: the write is cut, nothing else happens",
)
def test_a_table_of_buffers_over_itself(arena, folders):
    at = wasi.PAYLOAD_AT + 8 + 3 * wasi.STEP_BYTES
    opened = ("path_open", [4, 0, at, 1, 1, 0x1FFFFFFF, 0x1FFFFFFF, 0, 64])
    write = ("fd_write", [5, at + 8, 1, at + 8])  # counts what was written over its own table
    again = ("fd_write", [5, at + 8, 2**32 - 1, at + 12])
    steps = program([(n, [*a, *[0] * (9 - len(a))]) for n, a in (opened, write, again)])
    steps += b"f" + bytes(7) + struct.pack("<2I", 0, 3 << 20) + bytes(64)
    instance = arena.instance(arena.linkage(wasi.machine()), folders=folders)
    got = arena.attack(instance, [("run", steps)], deadline_s=300)
    assert got.ended
    assert got.error is None or not isinstance(got.error, EngineError)
    assert (folders["tmp"] / "f").stat().st_size <= 1 << 20
