"""Which locks on a volume an instance has made: folders `NAME.lock`, as SQLite makes them beside a
database. Any other that it meets is of an instance that was killed, since it has the volume alone.
"""

from __future__ import annotations

# Each is kept with its path, of up to 4 KiB. A guest that renames its locks could make any number.
MAX_LOCKS = 1000

Lock = tuple[int, bytes]  # a folder's descriptor, and the path from there


class MadeLocks:
    def __init__(self) -> None:
        self._made: set[Lock] = set()
        self._lost = False

    def __len__(self) -> int:
        return len(self._made)

    def add(self, lock: Lock) -> None:
        if len(self._made) < MAX_LOCKS:
            self._made.add(lock)
        else:
            self._lost = True

    def discard(self, lock: Lock) -> None:
        self._made.discard(lock)

    def is_anothers(self, lock: Lock) -> bool:
        """For sure: after more than can be remembered, none is."""
        return not self._lost and lock not in self._made
