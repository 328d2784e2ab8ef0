"""Clocks a guest could time others with: all of them step in whole milliseconds."""

import os
import struct

import pytest
import wasmtime

from tools.fuzz import wasi

attack = pytest.mark.attack
STEP_NS = 1_000_000


def run(arena, folders, steps, *, blob: bytes = b"", **spec) -> bytes:
    """The guest's first KiB after these calls. `blob` lies behind them in its memory."""
    packed = b"".join(
        struct.pack("<10Q", wasi.NAMES.index(name), *args, *[0] * (9 - len(args)))
        for name, *args in [*steps, ("host.call", 0, 1024, 2048, 2052)]
    )
    instance = arena.instance(arena.linkage(wasi.machine()), folders=folders, **spec)
    got = arena.attack(instance, [("run", struct.pack("<Q", len(packed)) + packed + blob)])
    assert got.error is None
    return got.frames[0]


def numbers(memory: bytes, *places: int) -> list[int]:
    return [int.from_bytes(memory[at : at + 8], "little") for at in places]


@attack(
    "timing others by the clocks: real, monotonic, of the process, of the thread",
    "steps of 1 ms, and their resolution says so",
)
def test_clocks_are_coarse(arena, folders):
    steps = [("clock_time_get", clock, 1, 64 + 16 * clock) for clock in range(4)]
    steps += [("clock_res_get", clock, 72 + 16 * clock) for clock in range(4)]
    memory = run(arena, folders, steps)
    assert [time % STEP_NS for time in numbers(memory, 64, 80, 96, 112)] == [0] * 4
    assert numbers(memory, 72, 88, 104, 120) == [STEP_NS] * 4


@attack(
    "timing others by the times of files, which the kernel keeps to the nanosecond",
    "steps of 1 ms",
)
def test_file_times_are_coarse(arena, folders):
    file = folders["app"] / "file"
    os.utime(file, ns=(1_700_000_000_123_456_789, 1_700_000_000_987_654_321))
    path = wasi.PAYLOAD_AT + 8 + 3 * wasi.STEP_BYTES
    steps = [("path_filestat_get", 3, 0, path, 4, 64), ("fd_filestat_get", 4, 128)]
    memory = run(arena, folders, steps, blob=b"file")
    times = numbers(memory, 64 + 40, 64 + 48, 64 + 56, 128 + 40, 128 + 48, 128 + 56)
    assert times[:2] == [1_700_000_000_123_000_000, 1_700_000_000_987_000_000]
    assert [time % STEP_NS for time in times] == [0] * 6


@attack(
    "a clock of one's own: a thread that counts in shared memory",
    "there are no threads and no shared memory: refused when compiled",
)
def test_there_is_no_second_thread_to_count(arena):
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(arena.engine, "(module (memory 1 1 shared))")


@attack("the same clocks, for apps that the operator trusts", "nanoseconds")
def test_precise_clocks_are_precise(arena, folders):
    times = set()
    for _ in range(5):
        memory = run(arena, folders, [("clock_time_get", 0, 1, 64)], clock_step_ns=1)
        times |= {time % STEP_NS for time in numbers(memory, 64)}
    assert times != {0}
    memory = run(arena, folders, [("clock_res_get", 1, 64)], clock_step_ns=1)
    assert numbers(memory, 64) == [1]
