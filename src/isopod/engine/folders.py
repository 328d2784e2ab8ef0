"""Listing folders for guests.

The engine's own `fd_readdir` looks at every entry of the folder in every call, 20 to 50 us each,
with the loop held: a folder of 20,000 files (an app may ship one) stopped all guests of a worker
for a second, a hundred times over. So the folders that guests open are opened here too, and read
once.

A folder is found again by walking from the opened one above it, one name at a time, never through
a link. What cannot be found so is left to the engine, if it is small.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress

_DIRENT = struct.Struct("<QQIB3x")  # next cookie, inode, length of the name, type
_UNKNOWN, _FOLDER, _FILE, _LINK = 0, 3, 4, 7
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """The folders that one guest has open, by its descriptors."""

    def __init__(self, preopened: Mapping[int, str]) -> None:
        """`preopened`: descriptor -> the folder's path here."""
        self._preopened = preopened
        self._opened: dict[int, int] = {}  # ours
        # Of the folder that was read last, as it was then: a guest reads one after the other.
        self._listed: int | None = None
        self._entries: list[tuple[bytes, int, int]] = []

    def opened(self, fd: int, parent: int, path: bytes) -> None:
        """The guest opened the folder `path` below `parent` as `fd`."""
        with suppress(OSError, ValueError):
            ours = self._walk(parent, path)
            if ours is not None:
                self._opened[fd] = ours

    def knows(self, fd: int) -> bool:
        return fd in self._opened or fd in self._preopened

    def closed(self, fd: int) -> None:
        ours = self._opened.pop(fd, None)
        if ours is not None:
            os.close(ours)
        if self._listed == fd:
            self._listed, self._entries = None, []

    def renumbered(self, fd: int, to: int) -> None:
        self.closed(to)
        ours = self._opened.pop(fd, None)
        if ours is not None:
            self._opened[to] = ours
        self._preopened = {
            number: path for number, path in self._preopened.items() if number not in (fd, to)
        }
        self._listed, self._entries = None, []

    def close(self) -> None:
        for fd in list(self._opened):
            self.closed(fd)
        self._entries = []

    def read(self, fd: int, cookie: int, size: int) -> bytes:
        """At most `size` bytes of entries from `cookie` on; the last one may be cut short, which
        says that there is more."""
        if cookie == 0 or self._listed != fd:
            self._list(fd)
        found = bytearray()
        for number in range(cookie, len(self._entries)):
            name, inode, kind = self._entries[number]
            found += _DIRENT.pack(number + 1, inode, len(name), kind) + name
            if len(found) >= size:
                break
        return bytes(found[:size])

    def _list(self, fd: int) -> None:
        self._listed, self._entries = None, []
        where = self._opened.get(fd, self._preopened.get(fd))
        assert where is not None
        found = [(b".", 1, _FOLDER), (b"..", 1, _FOLDER)]
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.is_symlink():
                    kind = _LINK
                elif entry.is_dir(follow_symlinks=False):
                    kind = _FOLDER
                else:
                    kind = _FILE if entry.is_file(follow_symlinks=False) else _UNKNOWN
                found.append((os.fsencode(entry.name), entry.inode(), kind))
        self._listed, self._entries = fd, found

    def _walk(self, parent: int, path: bytes) -> int | None:
        """A descriptor of ours for it; None where a link or the way up would be followed."""
        start = self._opened.get(parent)
        if start is None and parent not in self._preopened:
            return None
        above = [os.dup(start) if start is not None else os.open(self._preopened[parent], _FLAGS)]
        try:
            for name in path.split(b"/"):
                if name == b"..":
                    if len(above) == 1:
                        return None
                    os.close(above.pop())
                elif name not in (b"", b"."):
                    above.append(os.open(name, _FLAGS, dir_fd=above[-1]))
            return above.pop()
        finally:
            for one in above:
                os.close(one)
