"""Programs that a build or a preparation runs (npm, a bundler, a compiler): bounded in time, with
nothing on standard input and only the environment that they are handed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from isopod.errors import DependencyFailed, IsopodError


def run_program(
    command: Sequence[str],
    *,
    what: str,
    folder: Path,
    environment: Mapping[str, str],
    deadline_s: float,
    failure: type[IsopodError] = DependencyFailed,
) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder` until it ends, with whatever status. Raises `failure` when it
    cannot be started or does not end; `what` names it there."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        raise failure(f"{what} took longer than {deadline_s:g} s") from error
    except OSError as error:
        raise failure(f"{what} cannot be started: {error.strerror}") from error


def os_environment() -> dict[str, str]:
    """What a program of the system's needs to be found and to start."""
    return {"PATH": os.defpath + ":/usr/local/bin", "LC_ALL": "C.UTF-8"}
