"""What one instance could see of another: memory, environment, files, image."""

import struct

import pytest

from isopod.engine.image import Image, write_sparse

attack = pytest.mark.attack
# Fills its memory with what its payload holds; tells how much of it is not zero.
PATTERN = """(module
  (import "host" "call" (func $call (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "host_alloc") (param i32) (result i32) (i32.const 4194300))
  (func (export "write") (param $at i32) (param $size i32)
    (memory.fill (i32.const 0) (i32.load8_u (local.get $at)) (i32.const 4194304))
    (drop (memory.grow (i32.const 64)))
    (memory.fill (i32.const 4194304) (i32.const 170) (i32.const 4194304)))
  (func (export "scan") (local $at i32) (local $found i32)
    (drop (memory.grow (i32.const 64)))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
        (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8)))
        (i32.const 8388608))))
    (i32.store (i32.const 0) (local.get $found))
    (drop (call $call (i32.const 0) (i32.const 4) (i32.const 16) (i32.const 20))))
  (func (export "environment")
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $get (i32.const 8) (i32.const 256)))
    (drop (call $call (i32.const 0) (i32.const 1024) (i32.const 2048) (i32.const 2052)))))"""


@attack(
    "reading what ended instances left in memory (100 written full, 100 new ones scanned)",
    "every byte of a new instance is zero",
)
def test_fresh_memory_is_zero(arena):
    linkage = arena.linkage(PATTERN)
    # A module of its own, as another tenant's: the engine could keep memory by module.
    other = arena.linkage(PATTERN.replace("(i32.const 170)", "(i32.const 171)"))
    for number in range(100):
        written = arena.instance(linkage)
        arena.attack(written, [("write", bytes([number % 255 + 1]))], deadline_s=300)
        written.close()
        scanned = arena.instance(other if number % 2 else linkage)
        got = arena.attack(scanned, [("scan", None)], deadline_s=300)
        assert got.frames == [struct.pack("<I", 0)]
        scanned.close()
        arena.close_guests()


@attack(
    "reading another instance of the same image: what it wrote since it was restored",
    "each has the image as it was taken: pages that are written are its own",
)
def test_an_image_is_shared_and_never_written(arena, tmp_path):
    memory = bytearray(64 * 65536)
    memory[8 * 4096 : 8 * 4096 + 8] = b"original"
    path = tmp_path / "image"
    write_sparse(memory, path)
    linkage = arena.linkage(PATTERN)
    with path.open("rb") as file:
        image = Image(file.fileno(), len(memory), 0)
        one, two = arena.instance(linkage), arena.instance(linkage)
        one.start([("write", b"\xff")], image=image)
        while not one.memory_bytes or one.state.name == "READY":
            one.poll()
        assert bytes(one.memory()[8 * 4096 : 8 * 4096 + 8]) == b"\xff" * 8
        two.start([("scan", None)], image=image)
        two.poll()  # instantiated
        two.poll()  # restored
        assert bytes(two.memory()[8 * 4096 : 8 * 4096 + 8]) == b"original"
        assert sum(map(bool, two.memory())) == 8
    assert path.read_bytes() == bytes(memory)


@attack(
    "reading another instance's environment, or the node's",
    "its own variables, and nothing else",
)
def test_the_environment_is_ones_own(arena, monkeypatch):
    monkeypatch.setenv("ISOPOD_SECRET", "the node's")
    linkage = arena.linkage(PATTERN)
    neighbour = arena.instance(linkage, env=(("PASSWORD", "theirs"),))
    arena.attack(neighbour, [("environment", None)])
    got = arena.attack(arena.instance(linkage, env=(("MINE", "1"),)), [("environment", None)])
    count, size = struct.unpack_from("<2I", got.frames[0])
    assert (count, size) == (1, len("MINE=1\0"))
    assert b"theirs" not in got.frames[0] and b"the node's" not in got.frames[0]


@attack(
    "reading and writing outside of one's memory: below, above, at the end, in between",
    "the guest is ended: outside of its memory",
)
def test_addresses_outside_are_refused_by_the_engine(arena):
    linkage = arena.linkage(
        '(module (memory (export "memory") 1) (func (export "host_alloc") (param i32) (result i32)'
        '(i32.const 4096)) (func (export "peek") (param $p i32) (param $n i32)'
        "(drop (i64.load offset=4294967295 (i32.load (local.get $p)))))"
        '(func (export "poke") (param $p i32) (param $n i32)'
        "(i64.store (i32.load (local.get $p)) (i64.const -1))))"
    )
    for address in (65529, 65536, 1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
        for export in ("peek", "poke"):
            got = arena.attack(arena.instance(linkage), [(export, struct.pack("<I", address))])
            assert "outside its memory" in got.error.message
    arena.close_guests()


@attack(
    "calling another module's functions, or one of the engine's, through a table",
    "a table holds one's own functions; anything else is an empty element: ended",
)
def test_a_table_holds_ones_own_functions(arena):
    linkage = arena.linkage(
        '(module (memory (export "memory") 1) (table 10 funcref) (type $t (func))'
        '(func (export "host_alloc") (param i32) (result i32) (i32.const 4096))'
        '(func (export "go") (param $p i32) (param $n i32)'
        "(call_indirect (type $t) (i32.load (local.get $p)))))"
    )
    for index in (0, 9, 10, 1 << 20, (1 << 32) - 1):
        got = arena.attack(arena.instance(linkage), [("go", struct.pack("<I", index))])
        assert got.error is not None and got.ended
