"""Machine code of apps' own modules, in a worker that is shut in and cannot make any."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from tests.bombs import one_long_function

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache

STUB = Path(__file__).parents[2] / "stubs" / "coding_worker.py"
GIVES = '(module (memory (export "memory") 1) (func (export "gives") (result i32) i32.const {}))'
SECONDS = 3  # that a module may take to be compiled
HOG = 10
SHARED = '(module (memory (export "memory") 1 1 shared))'
THROWS = '(module (memory (export "memory") 1) (tag $it) (func (export "f") (throw $it)))'


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = tmp_path_factory.mktemp("coder")
    data = made / "data"
    (data / "blobs").mkdir(parents=True)
    blobs = BlobStore(data / "blobs")
    trees = TreeCache(data / "trees", blobs)
    named = {}

    def tree(name: str, module: bytes) -> Path:
        folder = made / name
        folder.mkdir()
        (folder / "app.wasm").write_bytes(module)
        named[name] = str(trees.make(folder))
        return blobs.path(named[name])

    for name, number in (("gives", 42), ("other", 7), ("third", 3)):
        tree(name, wasmtime.wat2wasm(GIVES.format(number)))
    tree("text", b"int main(void) {}")
    tree("component", b"\0asm\x0d\0\x01\0")
    tree("threads", wasmtime.wat2wasm(SHARED))
    tree("exceptions", wasmtime.wat2wasm(THROWS))
    for number in range(HOG):
        tree(f"bomb {number}", one_long_function(number))
    # What stands there under that digest is another module, by whoever may write there.
    swapped = tree("swapped", wasmtime.wat2wasm(GIVES.format(1)))
    swapped.write_bytes(blobs.path(named["gives"]).read_bytes())
    # A link to a blob that is sound.
    beside = tree("beside", wasmtime.wat2wasm(GIVES.format(2)))
    beside.rename(made / "elsewhere")
    beside.symlink_to(made / "elsewhere")
    named["dots"] = f"{named['gives']}/tree/../.."
    named["no such tree"] = "0" * 64
    (data / "modules.json").write_text(json.dumps(named))
    done = subprocess.run(
        [sys.executable, str(STUB), str(data), str(SECONDS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
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
    codes = {name: answer.partition(":")[0] for name, answer in seen["answers"].items()}
    assert codes == {
        **dict.fromkeys(("text", "component", "threads", "exceptions"), "module_invalid"),
        # What is in the blob decides, and nothing that stands in its place.
        **dict.fromkeys(("swapped", "beside"), "blob_corrupt"),
        "no such tree": "blob_missing",
        **dict.fromkeys(("dots", "no such file"), "module_invalid"),
    }
    assert seen["gone"] is False


def test_a_module_that_is_compiled_already_and_another_tenants_new_one_wait_for_no_slow_ones(seen):
    # In the order in which they were asked for, four at once, it would be eight.
    assert seen["ended before"] < HOG - 2


def test_a_module_that_takes_too_long_says_so_and_is_not_tried_again_at_once(seen):
    assert {code.partition(":")[0] for code in seen["slow"]} == {"module_too_costly"}
    assert seen["again"] == "module_too_costly: the module takes longer than 3 s to be compiled"
    assert seen["failures"] == HOG + 2  # and the two that are compiled in vain
    assert seen["left"] == []
