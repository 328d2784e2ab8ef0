"""`python -m isopod.runtimes.prepare [--for-up] NAME... CACHE_DIR`: prepare runtimes, telling
progress. With `--for-up`, only those that a node prepares by itself.

JSON lines on standard output: {"progress": 0.0-1.0, "text": ...}; on failure {"error": ...} and
exit status 1. A process of its own, because what it maps and compiles must not stay in the
supervisor.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from isopod import runtimes
from isopod.errors import IsopodError

_FOR_UP = "--for-up"


def main(*arguments: str) -> int:
    *names, cache_dir = arguments
    if for_up := _FOR_UP in names:
        names.remove(_FOR_UP)

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    try:
        for name in names:
            if for_up and not runtimes.known().get(name).prepared_by_up:
                continue
            runtimes.prepare(
                name, Path(cache_dir), lambda done, text: say({"progress": done, "text": text})
            )
    except IsopodError as error:
        say({"error": error.to_wire()})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
