import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.control.log_keeping import Ages, Plan, forget_old_lines, plan

DAY = 86_400.0
AGE = st.none() | st.floats(0, 10)


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        (Ages(None, None, None), Plan()),
        (Ages(None, 4, 1), Plan()),
        (Ages(None, 6, 1), Plan(rotate=True)),
        (Ages(3, 6, 1), Plan()),  # it would cost lines that are not too old
        (Ages(6, 7, 1), Plan(remove_before=True, rotate=True)),
        (Ages(8, 7, 6), Plan(remove_before=True, remove_current=True)),
    ],
)
def test_a_file_goes_when_all_of_it_is_too_old(ages, expected):
    assert plan(ages, 5) == expected


@given(AGE, AGE, AGE)
def test_no_plan_costs_a_line_that_is_young(before, oldest, newest):
    todo = plan(Ages(before, oldest, newest), 5)
    assert not todo.remove_before or before > 5
    assert not todo.remove_current or newest > 5
    assert not todo.rotate or before is None or before > 5


def written(path: Path, at: float, *, last: float) -> None:
    path.write_text(json.dumps({"at": at, "message": "x"}) + "\nhalf")
    os.utime(path, (last, last))


def test_a_round_forgets_what_is_too_old_and_nothing_else(tmp_path):
    now = 100 * DAY
    written(tmp_path / "quiet.jsonl", now - 9 * DAY, last=now - 8 * DAY)
    written(tmp_path / "busy.jsonl", now - 9 * DAY, last=now - 1)
    written(tmp_path / "both.jsonl.1", now - 9 * DAY, last=now - 8 * DAY)
    written(tmp_path / "both.jsonl", now - 6 * DAY, last=now - 1)
    written(tmp_path / "late.jsonl.1", now - 9 * DAY, last=now - 6 * DAY)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "strange.txt").touch()
    (tmp_path / "folder.jsonl").mkdir()
    forget_old_lines(tmp_path, 7 * DAY, now)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(
        ["busy.jsonl.1", "both.jsonl", "late.jsonl.1", "strange.txt", "empty.jsonl", "folder.jsonl"]
    )
