"""esbuild, as a program: how it is called, and what it says when it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isopod.runtimes.program import run_program

TIMEOUT_S = 120.0
# Workers' conditions come first: such a build of a package uses no Node.
_CONDITIONS = "workerd,worker,module,import,default"
_MESSAGE = re.compile(
    r"^(?:✘ \[ERROR\]|X \[ERROR\]) (?P<text>.+?)\n(?:\n {4}(?P<file>[^\n]+?):(?P<line>\d+):\d+:)?",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error. `file` and `line` are "" and 0 where it names none."""

    text: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Bundled:
    complaints: tuple[Complaint, ...]
    said: str


def bundle(
    program: Path,
    source: str,
    out: Path,
    *options: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Bundled:
    """Bundle `source` (relative to `folder`) into `out`. Raises DependencyFailed when esbuild does
    not end."""
    command = [
        *(str(program), source, "--bundle", f"--outfile={out}", "--platform=neutral"),
        *("--main-fields=module,main", f"--conditions={_CONDITIONS}", "--target=es2023"),
        *("--legal-comments=none", "--log-level=error", "--log-limit=20", "--color=false"),
        *options,
    ]
    done = run_program(
        command,
        what="esbuild",
        folder=folder,
        # The bundler is written in Go: more threads than cores only cost memory.
        environment={"GOMAXPROCS": "2", "HOME": os.devnull, **(environment or {})},
        deadline_s=TIMEOUT_S,
    )
    if done.returncode == 0:
        return Bundled((), done.stderr)
    found = tuple(
        Complaint(one["text"], one["file"] or "", int(one["line"] or 0))
        for one in _MESSAGE.finditer(done.stderr)
    )
    last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
    return Bundled(found or (Complaint(last[0], "", 0),), done.stderr)
