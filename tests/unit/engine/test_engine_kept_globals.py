"""A module's globals in its memory image, hidden ones included."""

import contextlib
import os

import pytest
import wasmtime
from tests.unit.engine.conftest import Told

from isopod.engine.config import MIB
from isopod.engine.image import Image, write_sparse
from isopod.engine.instance import Instance, InstanceSpec, State
from isopod.engine.kept_globals import LOAD, MAX_BYTES, SAVE, keep_globals
from isopod.engine.linker import Linkage
from isopod.errors import ModuleInvalid

# Nothing but `count` shows the globals, each of another type.
COUNTER = """
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (global $a (mut i32) (i32.const 1))
  (global $fixed i32 (i32.const 40))
  (global $b (mut i64) (i64.const -1))
  (global $c (mut f64) (f64.const 0.5))
  (global $d (mut f32) (f32.const 0x1p-3))
  (global $e (mut v128) (v128.const i64x2 7 9))
  (memory (export "memory") 2)
  (func (export "count") (result i32)
    (global.set $a (i32.add (global.get $a) (i32.const 1)))
    (global.set $b (i64.add (global.get $b) (i64.const 0x100000001)))
    (global.set $c (f64.add (global.get $c) (f64.const 1)))
    (global.set $d (f32.add (global.get $d) (f32.const 1)))
    (global.set $e (i64x2.add (global.get $e) (v128.const i64x2 1 1)))
    (i32.add (global.get $a)
      (i32.add (i32.wrap_i64 (i64.shr_u (global.get $b) (i64.const 32)))
        (i32.add (i32.trunc_f64_u (global.get $c))
          (i32.add (i32.trunc_f32_u (global.get $d))
            (i32.wrap_i64 (i64x2.extract_lane 1 (global.get $e)))))))))
"""
SPEC = InstanceSpec(argv=(), env=(), preopens=(), memory_bytes=4 * MIB)


def call(linkage: Linkage, instance: Instance, name: str, *numbers: int) -> int:
    instance.then([(name, tuple(numbers))])
    Told(instance).run()
    assert instance.state is State.ENDED
    return instance.returned


def test_an_instance_from_an_image_goes_on_with_all_its_globals(engine, tmp_path):
    module = bytes(wasmtime.wat2wasm(COUNTER))
    kept = keep_globals(module)
    assert kept.size == 4 + 8 + 8 + 4 + 16
    linkage = Linkage(engine, wasmtime.Module(engine, kept.module))
    first = Instance(linkage, SPEC)
    first.start([("count", None), ("count", None)])
    Told(first).run()
    counted = first.returned
    call(linkage, first, SAVE, 100_001)  # no alignment is needed
    write_sparse(first.memory(), tmp_path / "image")
    afterwards = [call(linkage, first, "count") for _ in range(3)]
    first.close()
    assert afterwards[0] > counted
    fd = os.open(tmp_path / "image", os.O_RDONLY)
    for _ in range(2):
        again = Instance(linkage, SPEC)
        image = Image(fd, (tmp_path / "image").stat().st_size, 0)
        again.start([(LOAD, (100_001,)), ("count", None)], image=image)
        Told(again).run()
        assert [again.returned, *(call(linkage, again, "count") for _ in range(2))] == afterwards
        again.close()
    os.close(fd)


def test_a_module_without_globals_is_kept_too(engine):
    kept = keep_globals(bytes(wasmtime.wat2wasm('(module (func (export "f")))')))
    assert kept.size == 0
    # Its functions write nothing, and so need no memory.
    names = [one.name for one in wasmtime.Module(engine, kept.module).exports]
    assert names == ["f", SAVE, LOAD]


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (b"\0asm\x0d\0\1\0", "no core module"),
        (b"", "no core module"),
        (b"\0asm\1\0\0\0", "no functions"),
        (b"\0asm\1\0\0\0\6\xff\xff\xff", "cannot be kept"),
        (b"\0asm\1\0\0\0\6" + b"\xff" * 12, "no end"),
        ('(module (global (mut funcref) (ref.null func)) (func (export "f")))', "reference"),
        ('(module (import "a" "b" (global (mut i32))) (func (export "f")))', "more than functions"),
        ('(module (import "a" "b" (memory 1)) (func (export "f")))', "more than functions"),
        (
            f"(module {'(global (mut i64) (i64.const 0))' * (MAX_BYTES // 8 + 1)}"
            ' (func (export "f")))',
            "of at most",
        ),
    ],
)
def test_what_cannot_be_kept_is_said(module, what):
    data = bytes(wasmtime.wat2wasm(module)) if isinstance(module, str) else module
    with pytest.raises(ModuleInvalid, match=what):
        keep_globals(data)


def test_no_cut_of_a_module_is_more_than_a_clear_error(engine):
    module = bytes(wasmtime.wat2wasm(COUNTER))
    for end in range(len(module)):
        # Where a section ends, it is a module; the engine looks at it before it runs.
        with contextlib.suppress(ModuleInvalid, wasmtime.WasmtimeError):
            wasmtime.Module(engine, keep_globals(module[:end]).module)
