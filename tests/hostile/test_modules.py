"""Modules that no compiler made, as an app may be one: what the runtimes for such apps stand on."""

import subprocess
import sys
import time

import pytest
import wasmtime

from isopod.engine.linker import Linkage
from isopod.errors import EngineError

attack = pytest.mark.attack
HEADER = b"\0asm\1\0\0\0"
SMALL = bytes(
    wasmtime.wat2wasm(
        '(module (memory (export "memory") 1) (func (export "host_alloc") (param i32) (result i32)'
        '(i32.const 4096)) (func (export "go")))'
    )
)


def leb(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + leb(len(body)) + body


def many_functions(count: int) -> bytes:
    kinds = section(1, b"\1\x60\0\0")
    functions = section(3, leb(count) + bytes(count))
    body = b"\2\0\x0b"
    code = section(10, leb(count) + body * count)
    return HEADER + kinds + functions + code


def compiled(tmp_path, module: bytes, timeout_s: float = 300) -> subprocess.CompletedProcess[bytes]:
    """As the node compiles: in a process of its own."""
    source, out = tmp_path / "module.wasm", tmp_path / "module.cwasm"
    source.write_bytes(module)
    command = [sys.executable, "-m", "isopod.engine.compile", str(source), str(out)]
    return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)


@attack(
    "a module with 100,000 functions",
    "compiled in a process of its own, bounded in time; it is a module like any other",
)
def test_a_module_of_many_functions(arena, tmp_path, seen):
    began = time.monotonic()
    done = compiled(tmp_path, many_functions(100_000))
    seen(f"{time.monotonic() - began:.1f} s")
    assert done.returncode == 0


@attack("a module with 1,000,001 functions", "refused: more than the format's limit")
def test_a_module_of_too_many_functions(arena, tmp_path):
    done = compiled(tmp_path, many_functions(1_000_001))
    assert done.returncode == 1
    assert b"functions" in done.stderr


@attack("a module whose data section says that it has 2 GiB", "refused: it ends early")
def test_a_data_section_that_is_not_there(arena):
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(arena.engine, HEADER + b"\x0b" + leb(1 << 31) + b"\1\1")


@attack(
    "a module file with a data section of 2 GiB",
    "refused before it is read: a module has at most 256 MiB",
)
def test_a_data_section_of_2_gib(arena, tmp_path):
    source = tmp_path / "module.wasm"
    memory = section(5, b"\1\0" + leb(32768))
    data = leb(1) + b"\1" + leb(1 << 31)  # one passive segment
    with source.open("wb") as file:
        file.write(HEADER + memory + b"\x0b" + leb(len(data) + (1 << 31)) + data)
        file.truncate(file.tell() + (1 << 31))  # a hole: 2 GiB of zeros
    command = [sys.executable, "-m", "isopod.engine.compile", str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 1
    assert b"at most 268,435,456" in done.stderr
    assert not (tmp_path / "out").exists()


@attack("a module cut short at every byte", "refused, or a smaller module; never more")
def test_truncated_modules(arena):
    for size in range(len(SMALL)):
        try:
            module = wasmtime.Module(arena.engine, SMALL[:size])
        except wasmtime.WasmtimeError:
            continue
        assert len(module.exports) < 3


@attack("a module with each of its bits flipped", "refused, or run like any other guest")
def test_damaged_modules(arena):
    for at in range(8 * len(SMALL)):
        damaged = bytearray(SMALL)
        damaged[at // 8] ^= 1 << at % 8
        try:
            module = wasmtime.Module(arena.engine, bytes(damaged))
            linkage = Linkage(arena.engine, module)
        except (wasmtime.WasmtimeError, EngineError):
            continue
        arena.attack(arena.instance(linkage, memory_mib=1), [("go", None)], deadline_s=0.2)
        arena.close_guests()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "(component)", marks=attack("a component instead of a module", "refused: not a module")
        ),
        pytest.param(
            "(module (memory i64 1))", marks=attack("a 64-bit memory", "refused when compiled")
        ),
        pytest.param(
            "(module (memory 1) (memory 1))", marks=attack("two memories", "refused when compiled")
        ),
        pytest.param(
            "(module (memory 1 1 shared))",
            marks=attack("a memory shared between threads", "refused when compiled"),
        ),
    ],
)
def test_what_guests_may_not_have_is_refused(arena, text):
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(arena.engine, text)


INTERNALS = [
    *('(import "env" "system" (func (param i32) (result i32)))',),
    '(import "wasi_snapshot_preview1" "path_exec" (func))',
    '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
    '(import "wasi_snapshot_preview1" "fd_write" (func (param i64) (result i32)))',
    '(import "wasi" "thread-spawn" (func (param i32) (result i32)))',
    '(import "wasi:sockets/tcp" "create" (func))',
    '(import "host" "call" (func (param i32) (result i32)))',
    '(import "host" "reply" (func))',
    '(import "guest" "memory" (memory 0))',
    '(import "isopod" "linkage" (global i32))',
    '(import "host" "memory" (memory 1))',
    '(import "" "" (func))',
]


@pytest.mark.parametrize("text", INTERNALS)
@attack(
    "imports that are not offered: other systems', another type's, our internals' names",
    "refused: the module's imports cannot be satisfied",
)
def test_wrong_imports_are_refused(arena, text):
    module = wasmtime.Module(arena.engine, f'(module {text} (func (export "go")))')
    with pytest.raises(EngineError, match="cannot be satisfied"):
        Linkage(arena.engine, module)


@attack(
    "a compiled module (.cwasm) of a tenant's making, in a package",
    "a file like any other: only the node's own cache is ever mapped as machine code",
)
def test_machine_code_is_no_module(arena, tmp_path):
    machine_code = wasmtime.Module(arena.engine, SMALL).serialize()
    done = compiled(tmp_path, bytes(machine_code))
    assert done.returncode == 1


@attack("a module without a memory, or one whose memory is a function", "ended when it is called")
def test_a_guest_without_a_memory(arena):
    for text in ('(func (export "go"))', '(func (export "memory")) (func (export "go"))'):
        got = arena.attack(arena.instance(arena.linkage(f"(module {text})")), [("go", None)])
        assert "exports no 'memory'" in got.error.message
