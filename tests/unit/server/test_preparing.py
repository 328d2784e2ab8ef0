import asyncio
import os
import sys

import pytest

from isopod.errors import RuntimePrepareFailed
from isopod.server.preparing import prepare_runtimes
from isopod.settings import NodeSettings


class Said:
    def __init__(self) -> None:
        self.progressed: list[float] = []
        self.done = 0

    def say(self, text: str) -> None:
        raise AssertionError(text)

    def progress(self, fraction: float, text: str) -> None:
        self.progressed.append(fraction)

    def progress_done(self) -> None:
        self.done += 1


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Run the given code as the module that prepares; returns what was reported."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))

    def run(code: str) -> Said:
        (tmp_path / "the_preparer.py").write_text("import json, sys\n" + code)
        said = Said()
        settings = NodeSettings.load(data_dir=tmp_path, cache_dir=tmp_path)
        asyncio.run(
            prepare_runtimes("python", settings=settings, report=said, module="the_preparer")
        )
        return said

    return run


def test_progress_is_reported_as_it_comes_and_other_output_is_passed_over(prepare):
    said = prepare(
        "for p in (0.0, 0.5, 1.0): print(json.dumps({'progress': p, 'text': sys.argv[1]}))\n"
        "print('a library says hello')"
    )
    assert said.progressed == [0.0, 0.5, 1.0]
    assert said.done == 1


def test_what_is_prepared_already_shows_nothing(prepare):
    said = prepare("print(json.dumps({'progress': 1.0, 'text': 'ready'}))")
    assert (said.progressed, said.done) == ([], 0)


def test_its_error_is_raised_as_it_is(prepare):
    code = (
        "from isopod.errors import RuntimePrepareFailed as E\n"
        "print(json.dumps({'error': E('the module is damaged').to_wire()})); sys.exit(1)"
    )
    with pytest.raises(RuntimePrepareFailed, match="the module is damaged"):
        prepare(code)


def test_a_preparer_that_just_dies_is_told(prepare):
    with pytest.raises(RuntimePrepareFailed, match="status 9"):
        prepare("sys.exit(9)")
