"""What one tenant uses over all workers of the node, in a small file that all of them map.

Each worker writes a row of its own and reads all rows, so nothing is locked: a row has one writer,
and a cell is 8 aligned bytes. What is counted is a quota's business (see `quota`); what is billed
is counted elsewhere, and exactly.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from isopod.model.tenant import TenantName

# The cells of a row.
REQUESTS, INSTANCES, MEMORY, DAY, CPU_NS, EGRESS, WANTS = range(7)
_CELLS = 8
_CELL_BYTES = 8
_MOST = 2**64 - 1


class TenantUse:
    """`worker` of `workers`; the file is made where there is none. A worker that begins anew has no
    instances, whatever its predecessor left in its row; what was used stays used."""

    def __init__(self, folder: Path, tenant: str, *, worker: int, workers: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / TenantName.parse(tenant)  # a name in routes.db must not lead elsewhere
        size = workers * _CELLS * _CELL_BYTES
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._cells = memoryview(self._map).cast("Q")
        self._row = worker * _CELLS
        for cell in (INSTANCES, MEMORY, WANTS):
            self.set(cell, 0)

    def total(self, cell: int) -> int:
        """Over all workers."""
        return sum(self._cells[cell::_CELLS])

    def others(self, cell: int) -> int:
        """Over all workers but this."""
        return self.total(cell) - self._cells[self._row + cell]

    def latest_of_others(self, cell: int) -> int:
        own = self._row + cell
        return max(
            (value for at, value in self._at(cell) if at != own),
            default=0,
        )

    def of_day(self, cell: int, day: int) -> int:
        """Over all workers, where the row is of this day."""
        cells = self._cells
        return sum(value for at, value in self._at(cell) if cells[at - cell + DAY] == day)

    def set(self, cell: int, value: int) -> None:
        self._cells[self._row + cell] = max(0, min(value, _MOST))

    def add(self, cell: int, value: int) -> None:
        self.set(cell, self._cells[self._row + cell] + value)

    def begin_day(self, day: int) -> None:
        """What was used on another day is over."""
        if self._cells[self._row + DAY] != day:
            self.set(CPU_NS, 0)
            self.set(EGRESS, 0)
            self.set(DAY, day)

    def close(self) -> None:
        self._cells.release()
        self._map.close()

    def _at(self, cell: int) -> list[tuple[int, int]]:
        return [(at, self._cells[at]) for at in range(cell, len(self._cells), _CELLS)]
