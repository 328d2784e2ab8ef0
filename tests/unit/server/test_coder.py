"""Machine code of apps' own modules, in a worker that is shut in and cannot make any."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from tests.bombs import many_functions

STUB = Path(__file__).parents[2] / "stubs" / "coding_worker.py"
GIVES = '(module (memory (export "memory") 1) (func (export "gives") (result i32) i32.const {}))'
SECONDS = 2  # that a module may take to be compiled
SHARED = '(module (memory (export "memory") 1 1 shared))'


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.mktemp("coder") / "data"
    trees = data / "trees"
    trees.mkdir(parents=True)
    for name, number in (("gives", 42), ("other", 7)):
        (trees / f"{name}.wasm").write_bytes(wasmtime.wat2wasm(GIVES.format(number)))
    (data / "secret.wasm").write_bytes(wasmtime.wat2wasm(GIVES.format(1)))
    (trees / "text.wasm").write_text("int main(void) {}")
    (trees / "component.wasm").write_bytes(b"\0asm\x0d\0\x01\0")
    (trees / "threads.wasm").write_bytes(wasmtime.wat2wasm(SHARED))
    (trees / "bomb.wasm").write_bytes(many_functions(900_000))
    done = subprocess.run(
        [sys.executable, str(STUB), str(data), str(SECONDS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    print(done.stderr)
    assert done.returncode == 0
    print(done.stdout)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_worker_runs_modules_that_it_could_not_compile(seen):
    assert "seccomp" in seen["sandbox"]["on"]
    assert (seen["compiled"], seen["kept"], seen["other"]) == (42, 42, 7)


def test_what_was_compiled_for_one_tenant_is_compiled_again_for_another(seen):
    assert seen["files"] == 3


def test_nothing_that_a_worker_can_write_is_executable(seen):
    assert seen["rights"] == {
        "make memory executable": "Operation not permitted",
        "map executable memory": "Operation not permitted",
        "write to the window": "Permission denied",
    }
    assert seen["write its folder"] == "Permission denied"


def test_what_is_no_module_is_an_answer_and_the_process_lives(seen):
    assert set(seen["answers"].values()) == {"module_invalid"}
    assert seen["gone"] is False
