"""How long `isopod deploy` of the Flask hello takes when its dependencies are cached."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import native
from bench.figures import Figure, Result
from tools.node import Node, running

CHANGED = 5
IDENTICAL = 3


def run(say: Callable[[str], None]) -> Result:
    """The first deploy fills the caches and is shown only beside the others."""
    with running() as node, tempfile.TemporaryDirectory(prefix="isopod-bench-") as temporary:
        folder = Path(temporary) / "hello"
        shutil.copytree(native.APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
        say("first deploy")
        first = _deploy(node, folder)
        changed = []
        source = (folder / "app.py").read_text()
        for number in range(1, CHANGED + 1):
            say(f"changed app {number} of {CHANGED}")
            (folder / "app.py").write_text(f"{source}\n# change {number}\n")
            changed.append(_deploy(node, folder))
        say("identical deploys")
        identical = [_deploy(node, folder) for _ in range(IDENTICAL)]
    figures = [
        Figure("changed app, cached dependencies", statistics.median(changed), "s", 5.0),
        Figure("the slowest of them", max(changed), "s", 5.0),
        Figure("identical deploy", statistics.median(identical), "s"),
        Figure("first deploy on this node", first, "s"),
    ]
    raw = {"changed_s": changed, "identical_s": identical, "first_s": first}
    bars = {figure.name: figure.value for figure in figures}
    return Result("deploy", figures, raw, bars, "s")


def _deploy(node: Node, folder: Path) -> float:
    began = time.perf_counter()
    node.cli("deploy", str(folder), "--name", "hello")
    return time.perf_counter() - began
