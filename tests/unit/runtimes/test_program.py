"""Programs that a build runs."""

import sys

import pytest

from isopod.errors import DependencyFailed, RuntimePrepareFailed
from isopod.runtimes.program import run_program


def run(folder, *command, **options):
    asked = {"what": "the tool", "folder": folder, "environment": {}, "deadline_s": 30.0}
    return run_program(command, **asked | options)


def test_a_program_has_its_folder_and_environment_and_nothing_to_read(tmp_path):
    code = "import os, sys; print(os.getcwd(), os.environ['A'], [sys.stdin.read()]); sys.exit(3)"
    done = run(tmp_path, sys.executable, "-c", code, environment={"A": "b"})
    assert (done.stdout, done.returncode) == (f"{tmp_path} b ['']\n", 3)


def test_a_program_that_does_not_end_is_ended(tmp_path):
    code = "import signal; signal.pause()"
    with pytest.raises(DependencyFailed, match=r"the tool took longer than 0\.2 s"):
        run(tmp_path, sys.executable, "-c", code, deadline_s=0.2)


def test_a_program_that_is_not_there_is_the_failure_that_the_caller_names(tmp_path):
    with pytest.raises(RuntimePrepareFailed, match="the tool cannot be started: No such file"):
        run(tmp_path, tmp_path / "none", failure=RuntimePrepareFailed)
