"""Linked modules of apps: shared while they are used, let go when there is no room."""

import asyncio
import gc
from pathlib import Path

import pytest
import wasmtime

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere, Loaded
from isopod.errors import ModuleInvalid, NodeBusy
from isopod.runtimes.own_modules import OwnModules

ROOM = 2


class Narrow(CompiledHere):
    """Has room for two."""

    def __init__(self) -> None:
        super().__init__(make_engine(EngineSettings()))
        self.loads = self.held = 0

    def load(self, file: Path, owner: str) -> Loaded:
        if self.held == ROOM:
            raise NodeBusy("full")
        module = super().load(file, owner).module
        self.loads += 1
        self.held += 1
        return Loaded(module, self._release)

    def _release(self) -> None:
        self.held -= 1


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports(make_engine(EngineSettings()), streams=True)


@pytest.fixture
def code(imports: Imports) -> Narrow:
    made = Narrow()
    made.engine = imports.engine
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.wasm"
        text = f'(module (func (export "_start") (drop (i32.const {number}))))'
        path.write_bytes(wasmtime.wat2wasm(text))
        found.append(path)
    return found


def test_who_wants_the_same_at_once_waits_for_one_and_who_gives_up_ends_it_for_nobody(
    imports, code, files
):
    async def main() -> None:
        modules = OwnModules(code, imports)
        gone = asyncio.ensure_future(modules.linkage(files[0], "acme"))
        await asyncio.sleep(0)
        gone.cancel()
        found = await asyncio.gather(*(modules.linkage(files[0], "acme") for _ in range(5)))
        assert len(set(map(id, found))) == 1 and code.loads == 1
        assert modules.known(files[0], "acme") is found[0]
        assert modules.known(files[0], "globex") is None

    asyncio.run(main())


def test_without_room_the_one_that_was_not_used_for_longest_goes(imports, code, files):
    async def main() -> None:
        modules = OwnModules(code, imports)
        for file in files:
            await modules.linkage(file, "acme")
            modules.known(files[0], "acme")
        assert modules.known(files[0], "acme") and modules.known(files[3], "acme")
        assert modules.known(files[1], "acme") is None and code.held == ROOM

    asyncio.run(main())


def test_what_something_runs_in_is_not_let_go_and_the_next_is_told_that_there_is_no_room(
    imports, code, files
):
    async def main() -> None:
        modules = OwnModules(code, imports)
        held = [await modules.linkage(file, "acme") for file in files[:ROOM]]
        with pytest.raises(NodeBusy):
            await modules.linkage(files[2], "acme")
        held.clear()
        gc.collect()
        await modules.linkage(files[2], "acme")

    asyncio.run(main())


def test_a_module_that_cannot_be_linked_holds_no_room(imports, code, tmp_path):
    async def main() -> None:
        modules = OwnModules(code, imports)
        (tmp_path / "x.wasm").write_bytes(wasmtime.wat2wasm('(module (import "a" "b" (func)))'))
        (tmp_path / "y.wasm").write_bytes(b"y")
        with pytest.raises(Exception, match="not there"):
            await modules.linkage(tmp_path / "x.wasm", "acme")
        with pytest.raises(ModuleInvalid):
            await modules.linkage(tmp_path / "y.wasm", "acme")
        assert code.held == 0

    asyncio.run(main())
