"""A worker that is asked to have an app's module compiled says at once how far it is."""

import asyncio
from pathlib import Path

import pytest
import wasmtime

from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere
from isopod.runtimes.own_modules import OwnModules
from isopod.runtimes.wasi.language import Programs
from isopod.server.module_making import ModuleMaking

PROGRAM = '(module (func (export "_start")) (memory (export "memory") 1))'


@pytest.fixture
def making(tmp_path: Path) -> ModuleMaking:
    here = CompiledHere(make_engine(EngineSettings()))
    modules = OwnModules(here, Imports(here.engine, streams=True), exports={})
    trees = TreeCache(tmp_path / "trees", BlobStore(tmp_path / "blobs"))
    return ModuleMaking({"wasi": Programs(modules, 1)}, trees)


def question(tmp_path: Path, module: bytes, **more: str) -> dict[str, str]:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.wasm").write_bytes(module)
    tree = TreeCache(tmp_path / "trees", BlobStore(tmp_path / "blobs")).make(folder)
    asked = {"runtime": "wasi", "tenant": "acme", "app_tree": tree, "site_tree": tree}
    return {**asked, "entrypoint": "app.wasm", **more}


async def answers(making: ModuleMaking, asked: dict[str, str]) -> list[dict[str, object]]:
    said = [making.ask(asked)]
    async with asyncio.timeout(60):
        while said[-1] == {"ready": False}:
            await asyncio.sleep(0.01)
            said.append(making.ask(asked))
    return said


def test_it_begins_at_the_first_question_and_is_ready_at_a_later_one(making, tmp_path):
    async def main() -> None:
        said = await answers(making, question(tmp_path, wasmtime.wat2wasm(PROGRAM)))
        assert said[0] == {"ready": False} and said[-1] == {"ready": True}

    asyncio.run(main())


def test_what_cannot_be_compiled_is_told_as_it_is(making, tmp_path):
    async def main() -> None:
        said = await answers(making, question(tmp_path, b"no module"))
        assert said[-1]["error"]["code"] == "module_invalid"

    asyncio.run(main())


def test_an_app_without_a_module_of_its_own_is_ready(making, tmp_path):
    assert making.ask({"runtime": "python"}) == {"ready": True}
