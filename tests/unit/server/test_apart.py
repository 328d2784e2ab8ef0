"""Work on a tenant's bytes, in a process that has nothing but the file it writes."""

import json
import subprocess
import sys
from pathlib import Path

STUB = Path(__file__).parents[2] / "stubs" / "set_apart.py"


def test_who_takes_it_over_has_its_own_result_and_nothing_else(tmp_path):
    (tmp_path / "secret").write_text("x")
    done = subprocess.run(
        [sys.executable, str(STUB), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["attempts"] == {
        **dict.fromkeys(("open a file", "make a file", "list a folder"), "Permission denied"),
        "another's descriptor": "Bad file descriptor",
        **dict.fromkeys(("a socket", "a process", "its parent"), "Operation not permitted"),
        "too large a file": "File too large",
    }
    assert seen["ended"] == {
        "done": ["", False, False],
        "says that it is no module": ["module_invalid", False, True],
        "says that the disk is full": ["disk_full", False, True],
        "says what it may not say": ["", False, True],
        "sleeps": ["", True, True],
        "takes memory": ["", False, True],
    }
