"""The apps that the benches deploy, as folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.node import ROOT

HELLO = ROOT / "examples" / "flask-hello"
PANDAS = ROOT / "examples" / "pandas-report"
DJANGO = ROOT / "bench" / "apps" / "django-admin"

# A count that only an instance which served before can get beyond 1.
_COUNT = """

_served = 0


@app.get("/count")
def count():
    global _served
    _served += 1
    return str(_served)


@app.get("/spin")
def spin():
    while True:
        pass
"""


def hello(folder: Path, manifest: str = "", extra: str = "") -> Path:
    """The Flask hello in a new folder, with an isopod.toml, a `/count` and an endless `/spin`."""
    shutil.copytree(HELLO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "app.py"
    source.write_text(source.read_text() + _COUNT + extra)
    (folder / "isopod.toml").write_text(manifest)
    return folder
