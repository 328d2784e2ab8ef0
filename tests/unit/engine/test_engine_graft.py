"""Functions grafted onto modules, and guests that talk through a mailbox."""

from pathlib import Path

import pytest
import wasmtime

from isopod.engine.graft import graft
from isopod.errors import RuntimePrepareFailed

MODULE = wasmtime.wat2wasm(
    """
    (module
      (import "env" "seven" (func $seven (result i32)))
      (func $hidden (param i64) (result i64) (local.get 0))
      (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
      (memory (export "memory") 1)
      (data (i32.const 8) "\\2a"))
    """
)
ADDED = """
(func $twice (param i32) (result i32) (call $double (call $double (local.get 0))))
(func (export "fourfold_of_what_is_at") (param i32) (result i32)
  (call $twice (i32.load (local.get 0))))
"""


def test_grafted_functions_call_the_modules_own_and_use_its_memory() -> None:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    made = wasmtime.Module(engine, graft(bytes(MODULE), ADDED))
    assert [one.name for one in made.imports] == ["seven"]
    kind = wasmtime.FuncType([], [wasmtime.ValType.i32()])
    instance = wasmtime.Instance(store, made, [wasmtime.Func(store, kind, lambda: 7)])
    exports = instance.exports(store)
    assert exports["fourfold_of_what_is_at"](store, 8) == 4 * 42
    assert exports["double"](store, 4) == 8


def test_an_export_of_any_name_can_be_called() -> None:
    name = 'f: func(a: list<string>) -> "x" \\ \n'
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    source = (
        f'(module (memory (export "memory") 1) (func (export "{quoted}") (result i32) i32.const 5))'
    )
    text = f'(func (export "six") (result i32) (i32.add (i32.const 1) (call $"{quoted}")))'
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    made = wasmtime.Module(engine, graft(bytes(wasmtime.wat2wasm(source)), text))
    assert wasmtime.Instance(store, made, []).exports(store)["six"](store) == 6


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (b"\0asm\x0d\0\1\0", ""),  # a component
        (b"#!/bin/sh\n", ""),
        (bytes(MODULE)[:-7], ADDED),
        (bytes(MODULE), '(func (export "x") (call $nowhere))'),
    ],
)
def test_what_cannot_be_extended_is_an_error(module: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimePrepareFailed):
        wasmtime.Module(wasmtime.Engine(), graft(module, text))
