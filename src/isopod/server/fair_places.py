"""So many places for work that takes long, and whose turn it is: no tenant has more than half of
them, and the last free one is for who has none. Decides only; who asks acts."""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_OF_ONE, _MOST = 64, 1024  # that wait


class FairPlaces(Generic[T]):
    def __init__(self, places: int) -> None:
        self._places = places
        self._running: Counter[str] = Counter()
        # By owner; who was given a place last is at the end.
        self._waiting: dict[str, deque[T]] = {}

    def add(self, owner: str, job: T) -> bool:
        """False: too many wait."""
        waiting = self._waiting.get(owner, ())
        total = sum(map(len, self._waiting.values()))
        if len(waiting) >= _MOST_OF_ONE or total >= _MOST:
            return False
        self._waiting.setdefault(owner, deque()).append(job)
        return True

    def take(self) -> tuple[str, T] | None:
        """Whose turn it is, if there is a place for them; theirs until `done`."""
        free = self._places - self._running.total()
        allowed = [owner for owner in self._waiting if self._may_have_one(owner, free)]
        if not allowed:
            return None
        owner = min(allowed, key=self._running.__getitem__)  # of equals, who waits for longest
        jobs = self._waiting.pop(owner)
        job = jobs.popleft()
        if jobs:
            self._waiting[owner] = jobs
        self._running[owner] += 1
        return owner, job

    def done(self, owner: str) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]

    def _may_have_one(self, owner: str, free: int) -> bool:
        has = self._running[owner]
        return free > (1 if has else 0) and has < max(1, self._places // 2)
