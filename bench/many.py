"""One package under many names, and a node that is started on them.

A deploy under another name takes milliseconds, but each is made durable on its own; the benches
write thousands into the stopped node's state in one transaction, by isopod's own code, and
measure the deploys themselves apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from isopod.model.app import version_digest
from isopod.model.ids import AppName, Digest
from isopod.model.tenant import DEFAULT_TENANT
from isopod.state.database import open_state
from isopod.state.versions import MadeFrom
from tools import processes
from tools.node import Node, start

# Instances stay until the bench ends; the queue takes what is sent at once.
KEEP = "[scaling]\nidle_s = 86400\nqueue = 5000\n"


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder for one node, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="isopod-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def up(folder: Path, *, workers: int | None = None, **settings: object) -> Iterator[Node]:
    """A started node on `folder`, stopped at the end. Settings by their names: `port=0`."""
    env = {f"ISOPOD_{name.upper()}": str(value) for name, value in settings.items()}
    node = start(folder / "data", said=folder / "up.log", workers=workers, extra_env=env)
    try:
        node.wait_until_ready()
        yield node
    finally:
        if node.process.poll() is None:
            node.stop()


def copy(folder: Path, like: str, names: Sequence[str]) -> None:
    """The live version of `like` under every one of `names`. The node is stopped."""
    state = open_state(folder / "data" / "state.db")
    try:
        with state.transaction() as all_tenants:
            t = all_tenants.of(DEFAULT_TENANT)
            app = t.apps.get(AppName(like))
            version = t.versions.get(AppName(like), app.live_version) if app else None
            if version is None:
                raise RuntimeError(f"{like} is not deployed")
            for text in names:
                name, now = AppName(text), time.time()
                spec = replace(version.spec, name=name)
                own = Digest(hashlib.sha256(text.encode()).hexdigest())
                t.apps.save(name, source="", now=now)
                t.versions.add(
                    replace(
                        version,
                        app=name,
                        number=1,
                        spec=spec,
                        digest=version_digest(
                            package=version.package, build_key=version.build.key, spec=spec
                        ),
                        created_at=now,
                    ),
                    made_from=MadeFrom(own, own, own),
                )
                t.apps.set_live(name, 1)
    finally:
        state.close()


def names(count: int, begin: int = 0) -> list[str]:
    return [f"app{number:05}" for number in range(begin, count)]


def hostnames(count: int, begin: int = 0) -> list[str]:
    return [f"{name}.localhost" for name in names(count, begin)]


def memory_mib(pids: Sequence[int]) -> dict[str, float]:
    """Sums over processes: what is private to one of them, their part of what is shared, Rss."""
    totals = {"private": 0.0, "pss": 0.0, "rss": 0.0}
    for pid in pids:
        seen = processes.memory_kib(pid)
        totals["private"] += (seen["Private_Clean"] + seen["Private_Dirty"]) / 1024
        totals["pss"] += seen["Pss"] / 1024
        totals["rss"] += seen["Rss"] / 1024
    return totals


def available_mib() -> float:
    """What the kernel says could be had now, of the whole machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")
