"""What the host has to say to a guest: it lies here until the guest ends the turn it is in.

A guest chooses how long that is, and a hostile one asks on and on meanwhile, in one turn: for the
next piece of a download, for a connection that is refused. So what it asks for waits for room, and
what is said at once ends the guest where it grows without bound.
"""

from __future__ import annotations

import asyncio
from collections import deque

from isopod.errors import EngineError, GuestProtocolError

# Bytes of one guest. Pieces (of 64 KiB) and requests wait for room. The rest is for items that say
# that something ended or was refused: tens of thousands, which no honest app asks for in one turn.
_ROOM = 1 << 20
_MOST = 4 << 20
_EACH = 64  # of an item, beside its bytes


class Inbox:
    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._bytes = 0
        self._door = asyncio.Lock()  # one at a time: each sees what the one before has put in
        self._drained = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def held_bytes(self) -> int:
        return self._bytes

    async def room(self) -> None:
        """Until there is room for what may wait; who asks puts it in without waiting again."""
        if self._bytes <= _ROOM and not self._door.locked():
            return
        async with self._door:
            while self._bytes > _ROOM:
                self._drained.clear()
                await self._drained.wait()

    def put(self, item: bytes) -> None:
        """Raises GuestProtocolError."""
        self._items.append(item)
        self._bytes += len(item) + _EACH
        if self._bytes > _MOST:
            raise GuestProtocolError("the guest asks for more than it takes")

    def take(self, room: int) -> bytes:
        """In their order, as many whole items as `room` bytes hold. Raises EngineError."""
        batch: list[bytes] = []
        while self._items and len(self._items[0]) <= room:
            item = self._items.popleft()
            room -= len(item)
            self._bytes -= len(item) + _EACH
            batch.append(item)
        if self._items and not batch:
            raise EngineError("what the host says does not go into the guest's inbox")
        if self._bytes <= _ROOM:
            self._drained.set()
        return b"".join(batch)

    def clear(self) -> None:
        """Its guest is gone: nobody waits any more."""
        self._items.clear()
        self._bytes = 0
        self._drained.set()
