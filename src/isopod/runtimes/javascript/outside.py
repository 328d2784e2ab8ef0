"""Files of the node that an app imports by their paths.

A build may read what its tools need: the system's libraries, caches, the files that a registry's
settings name. None of it is the tenant's, so none may become a part of a bundle, nor of what the
bundler says of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from isopod.errors import PackageUnsafe
from isopod.runtimes.javascript.esbuild import Bundled

_PLACE = re.compile(r"^ +(?P<file>[^\n]+?):\d+:\d+:", re.MULTILINE)
_ADDED = re.compile(r"[?#]| with \{")


def refuse(done: Bundled, inputs: Path, *, folder: Path, own: Sequence[Path]) -> None:
    """`inputs`: esbuild's metafile, there if it bundled; paths in it, and in what it said, are
    relative to `folder`. Raises PackageUnsafe for one that is in none of the folders `own`."""
    said = (found["file"] for found in _PLACE.finditer(done.said))
    names = said if done.complaints else json.loads(inputs.read_bytes())["inputs"]
    if name := _outside(names, folder.resolve(), [path.resolve() for path in own]):
        raise PackageUnsafe(
            f"the app imports {name!r}, which is none of its files",
            hint="copy it into the app's folder, or add its package to package.json",
        )


def _outside(names: Iterable[str], folder: Path, own: Sequence[Path]) -> str:
    """esbuild names a file by its real path. What it adds (an import's attributes, its query)
    could hold "..", and is cut off; what is left of a file's name says where that is."""
    for name in names:
        path = os.path.normpath(folder / _ADDED.split(name.removeprefix("(disabled):"), 1)[0])
        if not any(Path(path).is_relative_to(one) for one in own):
            return path
    return ""
