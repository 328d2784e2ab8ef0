"""Which linked modules go when there is no room."""

import gc

import pytest
import wasmtime

from isopod.engine.config import EngineSettings, make_engine
from isopod.engine.kept_modules import KeptModules, order_to_go
from isopod.engine.linker import Imports, Linkage


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports(make_engine(EngineSettings()), streams=True)


def linkage(imports: Imports) -> Linkage:
    module = wasmtime.Module(imports.engine, "(module)")
    return Linkage(imports.engine, module, imports)


def test_those_of_who_holds_most_go_first_the_longest_unused_of_them():
    entries = [("a1", "a", 3), ("b1", "b", 9), ("a2", "a", 3), ("b2", "b", 1), ("c", "c", 5)]
    assert order_to_go(entries) == ["b1", "b2", "a1", "a2", "c"]


def test_what_something_runs_in_stays_and_the_next_one_goes(imports):
    kept = KeptModules()
    for name, size in (("hog 1", 9), ("hog 2", 9), ("other", 1)):
        kept.put(name, linkage(imports), owner=name[:3], size=size)
    used = kept.get("hog 1")
    kept.get("hog 2")
    gc.collect()
    assert kept.let_go() and kept.get("hog 2") is None
    assert kept.get("hog 1") is used and kept.get("other") is not None
    assert kept.let_go("hog") is False
    del used
    assert kept.let_go("hog") and kept.get("hog 1") is None and kept.get("other") is not None


def test_so_many_are_kept_and_of_too_many_it_is_the_one_with_most_that_loses_one(imports):
    kept = KeptModules(most=4)
    kept.put("other", linkage(imports), owner="other", size=1000)
    for number in range(6):
        kept.put(number, linkage(imports), owner="hog", size=1)
    assert kept.get("other") is not None
    assert [number for number in range(6) if kept.get(number) is not None] == [3, 4, 5]
