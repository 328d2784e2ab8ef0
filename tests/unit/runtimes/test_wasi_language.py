"""What a builder makes of a module: what it is, what it lacks, and whether it answers."""

import re
from pathlib import Path

import pytest
import wasmtime

from isopod import manifest as manifests
from isopod.errors import IsopodError
from isopod.model.ids import AppName
from isopod.runtimes.base import Claim
from isopod.runtimes.wasi.language import runtime


def wat(body: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {body})"))


START = '(func (export "_start")) '
MEMORY = '(memory (export "memory") 1) '
WASI = '(import "wasi_snapshot_preview1" '


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        (b"int main(void) {}", "module_invalid", "no WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "module_invalid", "a component"),
        (b"\0asm\x01\0\0\0\x7f", "module_invalid", "cannot be compiled"),
        (wat(""), "module_invalid", "exports nothing"),
        (wat(MEMORY), "module_invalid", "no function '_start'"),
        (wat(START), "module_invalid", "no memory 'memory'"),
        (wat(MEMORY + '(func (export "_start") (param i32))'), "module_invalid", "has to be"),
        (wat('(memory (export "memory") 1 2 shared)' + START), "module_invalid", "threads"),
        (wat("(type (struct (field i64)))" + MEMORY + START), "module_invalid", "garbage"),
        (wat("(type $f (func)) (type (func (param (ref $f))))" + MEMORY + START),
         "module_invalid", "garbage"),
        (wat("(tag (param i64))" + MEMORY + START), "module_invalid", "throws exceptions"),
        (wat('(import "env" "draw" (func)) (import "wasi_unstable" "fd_write" '
             "(func (param i32 i32 i32 i32) (result i32)))" + MEMORY + START),
         "module_invalid", "env.draw, wasi_unstable.fd_write"),
        (wat(WASI + '"fd_write" (func (param i64)))' + MEMORY + START),
         "module_invalid", "fd_write, which is (i32 i32 i32 i32) -> (i32)"),
        (wat(WASI + '"sock_open" (func))' + MEMORY + START), "module_invalid", "sock_open"),
        (wat('(memory (export "memory") 1000)' + START), "memory_limit_exceeded", "1000 pages"),
        (wat(MEMORY + START + "(func $f (loop (br 0))) (start $f)"), "deadline_exceeded", "not"),
        (wat(MEMORY + START), "health_failed", "without a response"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value) if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_program_is_said_by_name(tmp_path, module, code, message):
    limits = "[limits]\ndeadline_ms = 500\nmemory_mib = 32\n"
    with pytest.raises(IsopodError, match=re.escape(message)) as failed:
        build(tmp_path, module, limits)
    assert failed.value.code == code
    print(f"SEEN {failed.value.code}: {failed.value.message} ({failed.value.hint})")


def build(base: Path, module: bytes, toml: str = "") -> None:
    """As a builder does."""
    folder, tmp = base / "app", base / "tmp"
    for made in (folder, tmp):
        made.mkdir()
    (folder / "a.wasm").write_bytes(module)
    (folder / "isopod.toml").write_text(toml)
    manifest, language = manifests.load(folder), runtime()
    name = AppName.parse("a")
    entrypoint = language.detect(folder, manifest)
    spec = manifest.to_spec(name=name, runtime="wasi", entrypoint=entrypoint, env={})
    language.compile_app(base, folder, manifest)
    language.check_health(base, app_tree=folder, site_tree=base, spec=spec, tmp_root=tmp)


def test_what_would_provide_an_import_is_said(tmp_path):
    imports = (
        '(import "env" "memcpy" (func)) (import "wasi" "thread-spawn" (func (param i32)))'
        '(import "gojs" "runtime.wasmExit" (func (param i32)))'
    )
    with pytest.raises(IsopodError) as failed:
        build(tmp_path, wat(imports + MEMORY + START))
    for said in ("no --allow-undefined", "wasm32-wasip1-threads", "GOOS=wasip1"):
        assert said in failed.value.hint


def test_a_thousand_unknown_imports_are_not_all_in_the_message(tmp_path):
    names = "".join(f'(import "env" "f{number}" (func))' for number in range(1000))
    with pytest.raises(IsopodError, match="and 980 more") as failed:
        build(tmp_path, wat(names + MEMORY + START))
    assert len(failed.value.details["imports"]) == 1000


def claimed(folder: Path, **modules: bytes) -> Claim:
    for name, module in modules.items():
        (folder / f"{name}.wasm").write_bytes(module)
    return runtime().claim(folder, manifests.load(folder))


def test_a_program_alone_is_claimed_and_a_part_of_another_app_is_not_insisted_on(tmp_path):
    assert claimed(tmp_path) is Claim.NO
    (tmp_path / "part").mkdir()
    assert claimed(tmp_path / "part", part=wat("")) is Claim.MAYBE
    assert claimed(tmp_path, one=wat(MEMORY + START)) is Claim.SURE
    assert claimed(tmp_path, two=wat("")) is Claim.MAYBE
    (tmp_path / "isopod.toml").write_text('[app]\nentrypoint = "main:app"\n')
    assert claimed(tmp_path) is Claim.NO
    (tmp_path / "isopod.toml").write_text('[app]\nentrypoint = "one.wasm"\n')
    assert claimed(tmp_path) is Claim.SURE


@pytest.mark.parametrize("said", ["/etc/x.wasm", "../x.wasm", "a/../../x.wasm", "a\\\\x.wasm"])
def test_a_module_outside_of_the_app_is_no_entrypoint(tmp_path, said):
    (tmp_path / "isopod.toml").write_text(f'[app]\nentrypoint = "{said}"\n')
    with pytest.raises(IsopodError, match="must be a file of the app"):
        manifests.load(tmp_path)
