"""What snapshots need to know of the runtime itself, found out once when it is prepared.

`base.image` is the memory of an instance that was never called: images store only what differs from
it. `facts.json` says where SQLite keeps the state of its random generator, which every image must
forget: SQLite offers Python no way to seed it again.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from isopod.engine.image import write_sparse
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import RuntimePrepareFailed
from isopod.runtimes.python.runtime import BASE_IMAGE, CHACHA20, FACTS, PythonRuntime

_MEMORY_MIB = 256
_USE_SQLITE = (
    "import sqlite3; sqlite3.connect(':memory:').execute('select random()').fetchone(); "
    "import _host; _host.call(b'R')"
)


def prepare(runtime: PythonRuntime, folder: Path) -> None:
    """Write both files into the runtime's folder. Raises RuntimePrepareFailed."""

    async def probe(scheduler: Scheduler) -> tuple[bytes, bytes]:
        before = await runtime.memory_after(scheduler, None, _MEMORY_MIB)
        after = await runtime.memory_after(scheduler, _USE_SQLITE, _MEMORY_MIB)
        return before, after

    before, after = in_scheduler(runtime.linkage.engine, probe)
    facts = {"sqlite_random_state": _find_state(before, after)}
    temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.write_text(json.dumps(facts))
        temporary.replace(folder / FACTS)
        write_sparse(before, temporary)
        # Last: its presence says that all is there.
        temporary.replace(folder / BASE_IMAGE)
    finally:
        temporary.unlink(missing_ok=True)


def _find_state(before: bytes, after: bytes) -> int:
    """The one place in static memory where the state appeared."""
    found = []
    at = after.find(CHACHA20)
    while at >= 0:
        if at % 4 == 0 and before[at : at + 4] == bytes(4):
            found.append(at)
        at = after.find(CHACHA20, at + 1)
    if len(found) != 1:
        raise RuntimePrepareFailed(
            f"SQLite's random state was found {len(found)} times in the Python runtime"
        )
    return found[0]
