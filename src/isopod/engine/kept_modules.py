"""The linked modules of apps that a worker keeps for the next instance: shared by all runtimes of
the worker, because they share the room that machine code has.

Which one goes is decided here: of the tenant whose own share is full, or of whoever holds most. One
that something runs in is never let go: that would free nothing, and cost its app a second copy.
"""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from isopod.engine.linker import Linkage

_KEPT = 256


@dataclass(slots=True)
class _Entry:
    linkage: Linkage | None
    known: weakref.ref[Linkage]
    owner: str
    size: int


class KeptModules:
    """On one loop."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # the last used is at the end

    def get(self, key: Hashable) -> Linkage | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.linkage

    def put(self, key: Hashable, linkage: Linkage, *, owner: str, size: int) -> None:
        """`size`: what its machine code takes."""
        self._entries[key] = _Entry(linkage, weakref.ref(linkage), owner, size)
        if len(self._entries) > self._most:
            ones = [(other, one.owner, 1) for other, one in self._entries.items() if other != key]
            self._let_go(order_to_go(ones))

    def let_go(self, owner: str | None = None) -> bool:
        """One module of `owner`'s, or (None) of whoever holds most. False: there is none that
        nothing runs in."""
        return self._let_go(
            order_to_go(
                (key, one.owner, one.size)
                for key, one in self._entries.items()
                if owner is None or one.owner == owner
            )
        )

    def _let_go(self, keys: Iterable[Hashable]) -> bool:
        return any(self._is_gone(key) for key in keys)

    def _is_gone(self, key: Hashable) -> bool:
        entry = self._entries.pop(key)
        entry.linkage = None
        if (used := entry.known()) is None:
            return True
        entry.linkage = used
        self._entries[key] = entry  # the last used: it is used now
        return False


def order_to_go(entries: Iterable[tuple[Hashable, str, int]]) -> list[Hashable]:
    """`entries`: key, owner and size, the last used at the end. Those of who holds most come first,
    of these the one that was not used for longest."""
    listed = list(entries)
    held: Counter[str] = Counter()
    for _, owner, size in listed:
        held[owner] += size
    return [key for key, owner, _ in sorted(listed, key=lambda one: (-held[one[1]], one[1]))]
