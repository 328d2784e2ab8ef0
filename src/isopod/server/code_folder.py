"""Machine code on disk, and what could not be compiled.

    OWNER.KEY.SHA256.cwasm   KEY: of what it was made (tenant, module, engine); SHA256: what is in
                             it, so that a damaged one is seen and made again
    OWNER.KEY.failed         why it is not compiled now, and until when
    .lock-OWNER.*            while somebody compiles it; .tmp-*: before it has its name

Several processes write here at once: one beside each worker. OWNER is a tenant's name, hashed: how
much each holds is seen from the names. A worker that has a file mapped keeps what it maps: files
are removed, and never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isopod.engine.config import EngineSettings, fingerprint
from isopod.errors import IsopodError, ModuleTooCostly

_ABANDONED_S = 60.0  # it is written in one piece
_PLACES = 2  # of one tenant, where something is compiled
_MAX_FAILURES = 64  # of one tenant
_FIRST_WAIT_S, _LONGER, _LAST_WAIT_S = 60.0, 4.0, 86_400.0
_MAX_FAILURE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one compilation; those of a build, in which the same module was compiled once."""

    seconds: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    path: Path
    owner: str
    size: int
    used_at: float


@dataclass(frozen=True, slots=True)
class CodeFolder:
    """`share_bytes`: what one tenant may have in it."""

    folder: Path
    room_bytes: int
    share_bytes: int

    def key(self, owner: str, module: bytes) -> str:
        """`OWNER.KEY`. What was compiled for one tenant is not taken for another: how long a start
        takes would tell what that one deployed."""
        whose = hashlib.sha256(owner.encode()).hexdigest()[:16]
        made_of = (owner, hashlib.sha256(module).hexdigest(), fingerprint(EngineSettings()))
        return f"{whose}.{hashlib.sha256(repr(made_of).encode()).hexdigest()}"

    def find(self, key: str) -> Path | None:
        for found in self.folder.glob(f"{key}.*.cwasm"):
            with suppress(FileNotFoundError), found.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                if found.name == f"{key}.{digest}.cwasm":
                    os.utime(found)
                    return found
                found.unlink(missing_ok=True)
        return None

    def keep(self, key: str, temporary: Path) -> Path:
        """Give it its name, and remove what is too much."""
        with temporary.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        owner, _, _ = key.partition(".")
        gone = to_remove(
            self._kept(),
            owner,
            temporary.stat().st_size,
            share=self.share_bytes,
            room=self.room_bytes,
        )
        for path in gone:
            path.unlink(missing_ok=True)
        return temporary.replace(self.folder / f"{key}.{digest}.cwasm")

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """A name that nobody has, gone afterwards."""
        self._sweep()
        path = self.folder / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def place(self, key: str) -> contextlib.AbstractContextManager[None]:
        """One of two that a tenant has: what is compiled for it at once takes memory, and there is
        a process like this one beside each worker."""
        owner, _, made_of = key.partition(".")
        return self.locked(f"{owner}.place-{int(made_of[-1], 16) % _PLACES}")

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """So that two who want the same compile it once. Its file is there only meanwhile."""
        path = self.folder / f".lock-{key}"
        while not _holds(lock := _opened(path), path, wait=True):
            os.close(lock)  # of one who was done just now
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    # -- what could not be compiled ---------------------------------------------------------

    def failure(self, key: str, bounds: Bounds) -> IsopodError | None:
        """Why it is not to be tried now. Wider bounds than it failed in are another matter."""
        known = self._failed(key)
        if known is None or not 0 < known["until"] - time.time() <= _LAST_WAIT_S:
            return None
        if _wider(bounds, known["bounds"]):
            return None
        error = IsopodError.from_wire(known["error"])
        if isinstance(error, ModuleTooCostly):
            error.details["retry_after_s"] = max(1, round(known["until"] - time.time()))
        return error

    def remember(self, key: str, error: IsopodError, bounds: Bounds) -> None:
        """What is wrong with a module stays wrong. What was too slow, or took too much, may fare
        better in another hour: it is tried again, each time later."""
        known = self._failed(key)
        times = known["times"] + 1 if known and not _wider(bounds, known["bounds"]) else 1
        wait_s = _LAST_WAIT_S
        if isinstance(error, ModuleTooCostly):
            wait_s = min(_LAST_WAIT_S, _FIRST_WAIT_S * _LONGER ** min(times - 1, 16))
            error.details["retry_after_s"] = round(wait_s)
        body = {
            "error": error.to_wire(),
            "until": time.time() + wait_s,
            "times": times,
            "bounds": [bounds.seconds, bounds.memory_bytes],
        }
        with self.temporary() as temporary:
            temporary.write_text(json.dumps(body))
            temporary.replace(self.folder / f"{key}.failed")
        owner, _, _ = key.partition(".")
        failures = sorted(self.folder.glob(f"{owner}.*.failed"), key=_changed_at)
        for path in failures[:-_MAX_FAILURES]:
            path.unlink(missing_ok=True)

    def forget_failure(self, key: str) -> None:
        (self.folder / f"{key}.failed").unlink(missing_ok=True)

    def _failed(self, key: str) -> dict[str, Any] | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            with (self.folder / f"{key}.failed").open("rb") as file:
                body = json.loads(file.read(_MAX_FAILURE_BYTES))
            seconds, memory_bytes = body["bounds"]
            return {
                "error": dict(body["error"]),
                "until": float(body["until"]),
                "times": int(body["times"]),
                "bounds": Bounds(int(seconds), int(memory_bytes)),
            }
        return None

    # ---------------------------------------------------------------------------------------

    def _kept(self) -> list[Kept]:
        found = []
        for path in self.folder.glob("*.cwasm"):
            with suppress(OSError):
                there = path.stat()
                owner, _, _ = path.name.partition(".")
                found.append(Kept(path, owner, there.st_size, there.st_mtime))
        return found

    def _sweep(self) -> None:
        """What processes that were killed left."""
        for path in self.folder.glob(".tmp-*"):
            if time.time() - _changed_at(path) > _ABANDONED_S:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".lock-*"):
            with suppress(OSError):
                lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if _holds(lock, path, wait=False):
                        path.unlink(missing_ok=True)
                finally:
                    os.close(lock)
        for path in self.folder.glob("*.failed"):
            if time.time() - _changed_at(path) > 2 * _LAST_WAIT_S:
                path.unlink(missing_ok=True)


def to_remove(kept: Sequence[Kept], owner: str, need: int, *, share: int, room: int) -> list[Path]:
    """What goes so that `owner` has room for `need` more: its own beyond its share, then those of
    who holds most; of these the ones that were not used for longest."""
    held: Counter[str] = Counter({owner: need})
    oldest_last: dict[str, list[Kept]] = {}
    for one in sorted(kept, key=lambda one: one.used_at, reverse=True):
        held[one.owner] += one.size
        oldest_last.setdefault(one.owner, []).append(one)
    gone = []

    def remove_of(whose: str) -> None:
        one = oldest_last[whose].pop()
        held[whose] -= one.size
        gone.append(one.path)

    while held[owner] > share and oldest_last.get(owner):
        remove_of(owner)
    while held.total() > room and (left := [whose for whose in oldest_last if oldest_last[whose]]):
        remove_of(max(left, key=held.__getitem__))
    return gone


def _wider(bounds: Bounds, before: Bounds) -> bool:
    return bounds.seconds > before.seconds or bounds.memory_bytes > before.memory_bytes


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _holds(lock: int, path: Path, *, wait: bool) -> bool:
    """Whether it is locked, and still the file of that name. Raises OSError where it may not wait
    and would have to."""
    fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), path.stat())
    return False


def _changed_at(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return time.time()
