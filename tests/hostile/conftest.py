"""Attacks by real guests. Each has a row in docs/hostile.md, and after each the same is asked: does
the process live, does a neighbour answer, are memory and descriptors back at their level.

`arena` is the engine with its scheduler in this process, for attacks on the engine; `battlefield`
is a node with an attacker's app and a neighbour's, for all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.arena import Arena, opened
from tests.hostile.battlefield import Battlefield, fought

_ROWS = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attack(tried, got): a row of docs/hostile.md")
    config.stash[_ROWS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    mark = item.get_closest_marker("attack")
    if mark is not None and report.when == "call":
        seen = [text for name, text in report.user_properties if name == "seen"]
        got = mark.args[1] if report.passed else "FAILED"
        row = (mark.args[0], "; ".join([got, *seen]))
        if row not in item.config.stash[_ROWS]:
            item.config.stash[_ROWS].append(row)
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("attacks, and what they got")
        for tried, got in rows:
            terminalreporter.line(f"{tried} | {got}")


@pytest.fixture
def seen(record_property):
    """`seen("3 ms")`: a measured part of the outcome, for the table at the end."""
    return lambda text: record_property("seen", text)


@pytest.fixture(scope="session")
def the_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with opened(tmp_path_factory.mktemp("compiled")) as arena:
        yield arena


@pytest.fixture
def arena(the_arena: Arena) -> Iterator[Arena]:
    """After the attack: the level of before, and an answer of the neighbour."""
    before = the_arena.level()
    yield the_arena
    the_arena.close_guests()
    the_arena.assert_level(before)
    the_arena.assert_neighbour()


@pytest.fixture(scope="session")
def the_battlefield(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    with fought(tmp_path_factory.mktemp("battlefield")) as battlefield:
        yield battlefield
        battlefield.assert_clean_end()


@pytest.fixture
def battlefield(the_battlefield: Battlefield) -> Iterator[Battlefield]:
    before = the_battlefield.worker()
    yield the_battlefield
    the_battlefield.assert_lives(before)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A read-only folder with a file, a writable one, and a secret beside them."""
    made = {"app": tmp_path / "app", "tmp": tmp_path / "tmp"}
    for folder in made.values():
        folder.mkdir()
    (made["app"] / "file").write_text("the app's")
    (tmp_path / "secret").write_text("nobody's business")
    return made
