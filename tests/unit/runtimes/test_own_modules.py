"""Linked modules of apps: shared while they are used, let go when there is no room."""

import asyncio
import functools
import gc
from collections import Counter
from pathlib import Path

import pytest
import wasmtime

from isopod.engine.code_window import WindowFull
from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.linker import Imports
from isopod.engine.machine_code import CompiledHere, Loaded
from isopod.errors import MachineCodeFull, ModuleInvalid, NodeBusy
from isopod.runtimes.own_modules import OwnModules

ROOM, SHARE = 3, 2
EXPORTS = {"_start": ("", "")}


class Narrow(CompiledHere):
    """Has room for three, of which two are one tenant's."""

    def __init__(self) -> None:
        super().__init__(make_engine(EngineSettings()))
        self.loads, self.held = 0, Counter[str]()

    async def load(self, file: Path, owner: str) -> Loaded:
        if self.held[owner] == SHARE:
            raise MachineCodeFull("full")
        if self.held.total() == ROOM:
            raise WindowFull("full")
        module = (await super().load(file, owner)).module
        self.loads += 1
        self.held[owner] += 1
        return Loaded(module, functools.partial(self.held.subtract, [owner]), 1)


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
        modules = OwnModules(code, imports, exports=EXPORTS)
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
        modules = OwnModules(code, imports, exports=EXPORTS)
        for file in files:
            await modules.linkage(file, "acme")
            modules.known(files[0], "acme")
        assert modules.known(files[0], "acme") and modules.known(files[3], "acme")
        assert modules.known(files[1], "acme") is None and code.held == {"acme": SHARE}

    asyncio.run(main())


def test_who_has_its_share_gives_up_its_own_and_the_room_of_others_is_theirs(imports, code, files):
    async def main() -> None:
        modules = OwnModules(code, imports, exports=EXPORTS)
        await modules.linkage(files[0], "globex")
        held = [await modules.linkage(file, "acme") for file in files[:SHARE]]
        with pytest.raises(MachineCodeFull):
            await modules.linkage(files[3], "acme")
        assert modules.known(files[0], "globex")
        # Who comes when all is used, gets it from whoever has most of what nobody runs in.
        held.pop(0)
        gc.collect()
        await modules.linkage(files[3], "initech")
        assert modules.known(files[0], "globex")
        assert code.held == {"acme": 1, "globex": 1, "initech": 1}

    asyncio.run(main())


def test_what_something_runs_in_is_not_let_go_and_the_next_is_told_that_there_is_no_room(
    imports, code, files
):
    async def main() -> None:
        modules = OwnModules(code, imports, exports=EXPORTS)
        held = [await modules.linkage(files[0], owner) for owner in "abc"]
        with pytest.raises(NodeBusy):
            await modules.linkage(files[2], "d")
        held.clear()
        gc.collect()
        await modules.linkage(files[2], "d")

    asyncio.run(main())


def test_a_compiler_that_is_busy_costs_nobody_what_is_linked(imports, code, files, monkeypatch):
    async def main() -> None:
        modules = OwnModules(code, imports, exports=EXPORTS)
        await modules.linkage(files[0], "globex")

        async def busy(file: Path, owner: str) -> Loaded:
            raise NodeBusy("too many modules wait to be compiled")

        monkeypatch.setattr(code, "load", busy)
        with pytest.raises(NodeBusy):
            await modules.linkage(files[1], "acme")
        assert modules.known(files[0], "globex") and code.held == {"globex": 1}

    asyncio.run(main())


def test_a_runtime_has_room_made_by_what_another_keeps(imports, code, files):
    async def main() -> None:
        one, other = (OwnModules(code, imports, exports=EXPORTS) for _ in range(2))
        for owner in "abc":
            await one.linkage(files[0], owner)
        await other.linkage(files[0], "d")
        assert other.known(files[0], "d") and other.known(files[0], "a") is None

    asyncio.run(main())


def test_a_module_that_cannot_be_linked_holds_no_room(imports, code, tmp_path):
    async def main() -> None:
        modules = OwnModules(code, imports, exports=EXPORTS)
        for name, text in {
            "imports": '(import "a" "b" (func)) (func (export "_start"))',
            "memory": '(import "env" "memory" (memory 1)) (func (export "_start"))',
            "table": '(import "env" "t" (table 1 funcref)) (func (export "_start"))',
            "exports": '(func (export "start"))',
            "signature": '(func (export "_start") (param i32))',
        }.items():
            (tmp_path / name).write_bytes(wasmtime.wat2wasm(f"(module {text})"))
            with pytest.raises(ModuleInvalid):
                await modules.linkage(tmp_path / name, "acme")
        (tmp_path / "y.wasm").write_bytes(b"y")
        with pytest.raises(ModuleInvalid):
            await modules.linkage(tmp_path / "y.wasm", "acme")
        assert code.held.total() == 0

    asyncio.run(main())
