"""Guests that never end and guests that take: stopped by the slice, the deadline and the limits."""

import pytest

from isopod.engine.config import MIB
from isopod.errors import GuestFailed, GuestProtocolError, MemoryLimitExceeded, StackLimitExceeded

attack = pytest.mark.attack
ALLOC = '(func (export "host_alloc") (param i32) (result i32) (i32.const 4096))'
CALL = '(import "host" "call" (func $call (param i32 i32 i32 i32) (result i32)))'
# Slices are 2 ms; this is for a machine that does other things too.
PAUSE_S = 0.5


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            f'(module (memory (export "memory") 1) {ALLOC} (func $s (loop (br 0))) (start $s))',
            marks=attack(
                "an infinite loop in a module's start function",
                "suspended every 2 ms, ended at its deadline; others answer meanwhile",
            ),
        ),
        pytest.param(
            f'(module (memory (export "memory") 1) {ALLOC} (func $f (export "go") (loop (br 0))))',
            marks=attack("an infinite loop in a request", "the same"),
        ),
        pytest.param(
            f'(module (memory (export "memory") 1) {ALLOC} '
            '(func $f (export "go") (return_call $f)))',
            marks=attack("an infinite chain of tail calls, without a loop", "the same"),
        ),
        pytest.param(
            f'(module {CALL} (memory (export "memory") 1) {ALLOC} (func (export "go") '
            "(loop (drop (call $call (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20)))"
            "(br 0))))",
            marks=attack("host calls in an infinite loop", "the same"),
        ),
        pytest.param(
            '(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32)))'
            f'(memory (export "memory") 1) {ALLOC} (func (export "go") (loop (drop (call $y))'
            "(br 0))))",
            marks=attack("WASI calls in an infinite loop", "the same"),
        ),
        pytest.param(
            '(module (import "wasi_snapshot_preview1" "poll_oneoff" '
            "(func $p (param i32 i32 i32 i32) (result i32)))"
            f'(memory (export "memory") 1) {ALLOC} (func (export "go") '
            "(i32.store (i32.const 16) (i32.const 1))"
            "(loop (drop (call $p (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 512)))"
            "(br 0))))",
            marks=attack("sleeps of no time in an infinite loop", "the same"),
        ),
    ],
)
def test_a_guest_that_never_ends_is_ended_and_holds_nobody_up(arena, seen, text):
    got = arena.attack(arena.instance(arena.linkage(text)), [("go", None)], deadline_s=0.5)
    seen(f"longest wait of the neighbour {got.pause_s * 1e3:.0f} ms")
    assert not got.ended
    assert got.pause_s < PAUSE_S


@attack(
    "an infinite loop in `host_alloc`, called while a host call is answered",
    "given up after 16 slices: the guest is ended as one that is out of memory",
)
def test_an_allocator_without_end_is_given_up(arena):
    text = (
        f'(module {CALL} (memory (export "memory") 1) (func (export "host_alloc") (param i32) '
        '(result i32) (loop (br 0)) (unreachable)) (func (export "go") '
        "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20)))))"
    )
    instance = arena.instance(arena.linkage(text))
    got = arena.attack(instance, [("go", None)], replies=[b"reply"], deadline_s=300)
    assert isinstance(got.error, MemoryLimitExceeded)
    assert got.pause_s < 1.0


BULK = """(module (memory (export "memory") 1) {alloc} (table 100000 funcref)
  (func (export "fill") (call $all) (loop (memory.fill (i32.const 0) (i32.const 1)
    (i32.mul (memory.size) (i32.const 65536))) (br 0)))
  (func (export "copy") (call $all) (loop (memory.copy (i32.const 65536) (i32.const 0)
    (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536))) (br 0)))
  (func (export "table") (loop (table.fill (i32.const 0) (ref.null func) (i32.const 100000))
    (br 0)))
  (func $all (loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 64)))))))"""


@pytest.mark.parametrize(
    "export",
    [
        pytest.param(
            "fill",
            marks=attack(
                "memory.fill over all of 256 MiB, again and again",
                "one fill cannot be interrupted: it holds the loop as long as writing "
                "limits.memory_mib takes; between two the guest is suspended, then ended",
            ),
        ),
        pytest.param("copy", marks=attack("memory.copy over all of 256 MiB", "the same")),
        pytest.param(
            "table", marks=attack("table.fill of the largest table", "100,000 elements: < 1 ms")
        ),
    ],
)
def test_a_bulk_operation_is_bounded_by_the_memory_limit(arena, seen, export):
    linkage = arena.linkage(BULK.format(alloc=ALLOC))
    instance = arena.instance(linkage, memory_mib=256)
    got = arena.attack(instance, [(export, None)], deadline_s=0.5)
    seen(f"longest wait of the neighbour {got.pause_s * 1e3:.0f} ms")
    assert not got.ended
    assert got.pause_s < 5.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            '(func $f (export "go") (call $f) (drop (i32.load (i32.const 0))))',
            marks=attack("endless recursion in Wasm", "ended: the guest used up its stack"),
        ),
        pytest.param(
            '(table 1 funcref) (elem (i32.const 0) $f) (func $f (export "go") '
            "(call_indirect (i32.const 0)) (drop (i32.load (i32.const 0))))",
            marks=attack("the same through a table", "the same"),
        ),
        pytest.param(
            '(func $f (export "go") (local i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) '
            "(call $f) (i64.store (i32.const 0) (local.get 3)) (drop (i32.load (i32.const 0))))",
            marks=attack("the same with large frames", "the same"),
        ),
        pytest.param(
            "(func $f (drop (call $call (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 20)))"
            '(call $f) (drop (i32.load (i32.const 0)))) (func (export "go") (call $f))',
            marks=attack("recursion with a host call at every level", "the same"),
        ),
    ],
)
def test_recursion_ends_at_the_stacks_end(arena, text):
    module = f'(module {CALL} (memory (export "memory") 1) {ALLOC} {text})'
    got = arena.attack(arena.instance(arena.linkage(module)), [("go", None)], deadline_s=300)
    assert isinstance(got.error, StackLimitExceeded)


@attack(
    "recursion across host calls: the allocator calls the host, which would allocate",
    "refused at the first level: a guest in its allocator may not call the host",
)
def test_host_calls_do_not_nest(arena):
    text = (
        f'(module {CALL} (memory (export "memory") 1) (func $a (export "host_alloc") (param i32) '
        "(result i32) (drop (call $call (i32.const 0) (i32.const 8) (i32.const 16) "
        '(i32.const 20))) (i32.const 4096)) (func (export "go") (drop (call $a (i32.const 1)))))'
    )
    instance = arena.instance(arena.linkage(text))
    got = arena.attack(instance, [("go", None)], replies=[b"reply"])
    assert isinstance(got.error, GuestProtocolError)
    assert "from its allocator" in got.error.message


@attack("growing memory without end", "stays within limits.memory_mib; told as its limit")
def test_memory_does_not_grow_past_its_limit(arena):
    text = (
        f'(module (memory (export "memory") 1) {ALLOC} (func (export "go") (loop '
        "(br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) (unreachable)))"
    )
    instance = arena.instance(arena.linkage(text), memory_mib=16)
    got = arena.attack(instance, [("go", None)], deadline_s=300)
    assert isinstance(got.error, MemoryLimitExceeded)
    assert instance.memory_bytes == 16 * MIB


@attack("growing a table without end", "stops at 100,000 elements")
def test_tables_do_not_grow_past_their_limit(arena):
    text = (
        f'(module {CALL} (memory (export "memory") 1) {ALLOC} (table $t 1 funcref) '
        '(func (export "go") (loop (br_if 0 (i32.ne (i32.const -1) '
        "(table.grow $t (ref.null func) (i32.const 1000)))))"
        "(i32.store (i32.const 0) (table.size $t))"
        "(drop (call $call (i32.const 0) (i32.const 4) (i32.const 16) (i32.const 20)))))"
    )
    got = arena.attack(arena.instance(arena.linkage(text)), [("go", None)], deadline_s=300)
    assert 98_000 < int.from_bytes(got.frames[0], "little") <= 100_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "(table 50000000 funcref)",
            marks=attack("a table of 50 million elements", "the module is not instantiated"),
        ),
        pytest.param(
            "(table 1 funcref)" * 5,
            marks=attack("more tables than four", "the module is not instantiated"),
        ),
    ],
)
def test_large_tables_are_refused(arena, text):
    module = f'(module (memory (export "memory") 1) {ALLOC} {text} (func (export "go")))'
    got = arena.attack(arena.instance(arena.linkage(module)), [("go", None)])
    assert isinstance(got.error, GuestFailed)


@attack(
    "a module that begins with 2 GiB of memory",
    "not instantiated: more than limits.memory_mib",
)
def test_a_large_first_memory_is_refused(arena):
    text = f'(module (memory (export "memory") 32768) {ALLOC} (func (export "go")))'
    instance = arena.instance(arena.linkage(text))
    assert arena.attack(instance, [("go", None)]).error is not None
    assert instance.memory_bytes == 0


@attack(
    "a GiB of words on descriptor 2",
    "64 KiB are kept, in memory of fixed size; the writes after it fail",
)
def test_a_flood_on_stderr_is_bounded(arena):
    text = (
        '(module (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) '
        f'(result i32))) (memory (export "memory") 300) {ALLOC} (func (export "go") '
        "(local $left i32) (local.set $left (i32.const 1024)) "
        "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1048576))"
        "(memory.fill (i32.const 64) (i32.const 120) (i32.const 1048576))"
        "(loop (drop (call $w (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))"
        "(br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) (unreachable)))"
    )
    got = arena.attack(arena.instance(arena.linkage(text)), [("go", None)], deadline_s=300)
    assert isinstance(got.error, GuestFailed)
    assert len(got.error.details["stderr"]) <= 64 << 10
