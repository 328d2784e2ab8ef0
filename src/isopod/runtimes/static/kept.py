"""What a worker keeps in memory for sites, fair between tenants.

The room is for all. When there is no more, who holds the most gives way, with what it has used
least recently: a tenant alone may have all of it, and nobody throws out what belongs to others by
asking for more of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
# Once there is no room, so much is made: who holds the most is not looked for at every call.
_AT_ONCE = 16


@dataclass(slots=True)
class _Part(Generic[K, V]):
    """One tenant's: value and size by key, the least recently used first."""

    of: OrderedDict[K, tuple[V, int]] = field(default_factory=OrderedDict)
    size: int = 0


class Kept(Generic[K, V]):
    """Sizes are in a unit of the caller's, and above 0."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._parts: dict[str, _Part[K, V]] = {}
        self._size = 0

    def get(self, tenant: str, key: K) -> V | None:
        part = self._parts.get(tenant)
        found = part.of.get(key) if part is not None else None
        if part is None or found is None:
            return None
        part.of.move_to_end(key)
        return found[0]

    def put(self, tenant: str, key: K, value: V, size: int) -> None:
        """It is gone again at once where the whole room is too small for it."""
        self.drop(tenant, key)
        part = self._parts.setdefault(tenant, _Part())
        part.of[key] = (value, size)
        part.size += size
        self._size += size
        while self._size > self._room:
            largest = max(self._parts, key=lambda one: self._parts[one].size)
            excess = self._size - self._room + self._room // _AT_ONCE
            fair = self._room // len(self._parts)
            self._shrink(largest, to=max(fair, self._parts[largest].size - excess))

    def drop(self, tenant: str, key: K) -> None:
        part = self._parts.get(tenant)
        if part is not None and key in part.of:
            self._take_off(tenant, part, part.of.pop(key)[1])

    def size_of(self, tenant: str) -> int:
        part = self._parts.get(tenant)
        return 0 if part is None else part.size

    def _shrink(self, tenant: str, *, to: int) -> None:
        part = self._parts[tenant]
        while part.size > to:
            self._take_off(tenant, part, part.of.popitem(last=False)[1][1])

    def _take_off(self, tenant: str, part: _Part[K, V], size: int) -> None:
        part.size -= size
        self._size -= size
        if not part.of:
            del self._parts[tenant]
