"""What a guest may open and write: descriptors counted, bytes bounded, times coarse.

The engine's WASI knows no such bounds: one guest could use up the worker's descriptors or the
disk. So the functions that open, and those that make files grow, are ours: they decide, and then
have WASI's own do the work (see `relay`). Reads are ours because of their size, which the engine
would allocate, read and copy at once. Folders we read ourselves (see `folders`).

The disk: each call is charged with the most that it can add. When a charge does not fit, the
guest's folder is measured; what it really holds then counts (files removed give their space back).
Files that were removed but are still open are part of it. Each entry counts with 16 KiB at least,
and a sparse file with its whole size.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from isopod.engine.folders import Folders
from isopod.engine.memory import GuestMemory
from isopod.engine.relay import Relay

# Errors of wasi_snapshot_preview1.
EINVAL, EIO, EMFILE, ENAMETOOLONG, ENOSPC, ENOTSUP = 28, 29, 33, 37, 51, 58
MAX_OPEN = 256  # descriptors beside the preopened folders
ALWAYS_OPEN = 16  # of them, whatever others hold
MAX_PATH_BYTES = 4096
# One read or write: a longer one comes back short, and is continued by whoever wants it whole.
MAX_PASS_BYTES = 1 << 20
_WRITES = frozenset({"fd_write", "fd_pwrite"})
_MAX_BUFFERS = 1024  # IOV_MAX
_BLOCK = 4096
_ENTRY = 16 << 10  # so that a folder has an end, too: measuring it takes its time
_CREATE, _DIRECTORY = 1, 2  # oflags of path_open
# A folder that the engine may read: 64 KiB of entries are a thousand or two.
_MAX_ENGINE_FOLDER = 64 << 10
_FILESTAT = 64  # bytes; nlink, size and the three times (ns) are u64 at these offsets
_INODE, _LINKS, _SIZE, _TIMES = 8, 24, 32, (40, 48, 56)
# Measuring may take this part of the time: a folder of many files is not measured at every write.
_MEASURE_SHARE = 0.2
_CHEAP_S = 0.001
_FULL = 1 << 62


class OpenFiles:
    """What all guests of a process hold open. One tenant's guests must not use up the process's
    descriptors: beyond a share of those, a guest gets no more than its first few."""

    def __init__(self) -> None:
        self.held = 0

    def allows(self, guest: int) -> bool:
        """Whether a guest that holds `guest` descriptors may have one more."""
        if guest < ALWAYS_OPEN:
            return True
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Ours for folders double it.
        return guest < MAX_OPEN and (most < 0 or self.held < most // 8)


class Files:
    """One guest's. `memory` and `relay` are asked for when there is a call, that is, late."""

    def __init__(
        self,
        *,
        preopened: Mapping[int, str],
        writable: Sequence[Path],
        limit: int | None,
        clock_step_ns: int,
        all_open: OpenFiles,
        memory: Callable[[], GuestMemory],
        relay: Callable[[], Relay],
    ) -> None:
        """`preopened`: descriptor -> folder. `writable`: those it may write to. `limit`: bytes in
        them, None for no bound."""
        self._folders = Folders(preopened)
        self._writable = writable
        self._limit = limit
        self._clock_step_ns = clock_step_ns
        self._memory = memory
        self._relay = relay
        self._all_open = all_open
        self._open: set[int] = set()
        self._used = 0  # at most
        self._measure_after = 0.0

    def call(self, name: str, arguments: Sequence[int]) -> int:
        """The errno of one call of a guest's. Numbers are unsigned and not to be trusted."""
        answer: int = getattr(self, f"_{name}")(*arguments)
        return answer

    def close(self) -> None:
        self._folders.close()
        self._all_open.held -= len(self._open)
        self._open.clear()

    # -- descriptors ------------------------------------------------------------------------

    def _path_open(self, *arguments: int) -> int:
        parent, _lookup, path, path_size, oflags, _base, _inheriting, _flags, out = arguments
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        if not self._all_open.allows(len(self._open)):
            return EMFILE
        if oflags & _CREATE and not self._charge(_ENTRY):
            return ENOSPC
        errno = self._relay().call("path_open", arguments)
        if errno == 0:
            fd = self._number(out, 4)
            self._opened(fd)
            if oflags & _DIRECTORY:
                self._folders.opened(fd, parent, self._memory().read(path, path_size))
        return errno

    def _fd_readdir(self, fd: int, out: int, size: int, cookie: int, used: int) -> int:
        if not self._folders.knows(fd):
            return self._read_by_engine(fd, out, size, cookie, used)
        memory = self._memory()
        memory.base(out, size)
        try:
            entries = self._folders.read(fd, cookie, size)
        except OSError:
            return EIO
        memory.write(out, entries)
        memory.write(used, len(entries).to_bytes(4, "little"))
        return 0

    def _read_by_engine(self, fd: int, *arguments: int) -> int:
        """Opened through a link, perhaps; or no folder at all."""
        with self._borrowed() as at:
            errno = self._relay().call("fd_filestat_get", (fd, at))
            large = self._number(at + _SIZE, 8) > _MAX_ENGINE_FOLDER
        if errno or large:
            return errno or ENOTSUP
        return self._relay().call("fd_readdir", (fd, *arguments))

    def _fd_close(self, fd: int) -> int:
        errno = self._relay().call("fd_close", (fd,))
        if errno == 0:
            self._folders.closed(fd)
            self._closed(fd)
        return errno

    def _fd_renumber(self, fd: int, to: int) -> int:
        errno = self._relay().call("fd_renumber", (fd, to))
        if errno == 0 and fd != to:
            self._folders.renumbered(fd, to)
            was_open = fd in self._open
            self._closed(fd)
            self._closed(to)
            if was_open:
                self._opened(to)
        return errno

    def _opened(self, fd: int) -> None:
        if fd not in self._open:
            self._open.add(fd)
            self._all_open.held += 1

    def _closed(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            self._all_open.held -= 1

    # -- growth -----------------------------------------------------------------------------

    def _fd_write(self, fd: int, buffers: int, count: int, written: int) -> int:
        return self._pass("fd_write", fd, buffers, count, written)

    def _fd_pwrite(self, fd: int, buffers: int, count: int, offset: int, written: int) -> int:
        return self._pass("fd_pwrite", fd, buffers, count, offset, written)

    def _fd_read(self, fd: int, buffers: int, count: int, read: int) -> int:
        return self._pass("fd_read", fd, buffers, count, read)

    def _fd_pread(self, fd: int, buffers: int, count: int, offset: int, read: int) -> int:
        return self._pass("fd_pread", fd, buffers, count, offset, read)

    def _pass(self, name: str, fd: int, buffers: int, count: int, *others: int) -> int:
        """Pass one buffer: the first that is not empty, and not all of it if it is long. POSIX
        lets reads and writes do less than they were asked to. (100 MiB in one read held the loop
        for 130 to 330 ms.)"""
        if count > _MAX_BUFFERS:
            return EINVAL
        memory = self._memory()
        at, size = buffers, 0
        for number in range(count):
            at = buffers + 8 * number
            size = self._number(at + 4, 4)
            if size:
                break
        passed = min(size, MAX_PASS_BYTES)
        writes = name in _WRITES and fd in self._open
        if writes and passed and not self._charge(-(-passed // _BLOCK) * _BLOCK + _BLOCK):
            return ENOSPC
        arguments = (fd, at, min(count, 1), *others)
        if passed == size:
            return self._relay().call(name, arguments)
        memory.write(at + 4, passed.to_bytes(4, "little"))
        try:
            return self._relay().call(name, arguments)
        finally:
            memory.write(at + 4, size.to_bytes(4, "little"))

    def _fd_allocate(self, fd: int, offset: int, size: int) -> int:
        if not self._charge(offset + size):
            return ENOSPC
        return self._relay().call("fd_allocate", (fd, offset, size))

    def _fd_filestat_set_size(self, fd: int, size: int) -> int:
        if not self._charge(size):
            return ENOSPC
        return self._relay().call("fd_filestat_set_size", (fd, size))

    def _path_create_directory(self, fd: int, path: int, path_size: int) -> int:
        return self._make("path_create_directory", (fd, path, path_size), path_size)

    def _path_symlink(self, old: int, old_size: int, fd: int, new: int, new_size: int) -> int:
        arguments = (old, old_size, fd, new, new_size)
        return self._make("path_symlink", arguments, max(old_size, new_size))

    def _path_link(self, *arguments: int) -> int:
        _old_fd, _flags, _old, old_size, _fd, _new, new_size = arguments
        return self._make("path_link", arguments, max(old_size, new_size))

    def _make(self, name: str, arguments: Sequence[int], path_size: int) -> int:
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        if not self._charge(_ENTRY):
            return ENOSPC
        return self._relay().call(name, arguments)

    # -- times ------------------------------------------------------------------------------

    def _fd_filestat_get(self, fd: int, out: int) -> int:
        return self._coarse(self._relay().call("fd_filestat_get", (fd, out)), out)

    def _path_filestat_get(self, *arguments: int) -> int:
        _fd, _lookup, _path, path_size, out = arguments
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        return self._coarse(self._relay().call("path_filestat_get", arguments), out)

    def _coarse(self, errno: int, out: int) -> int:
        """File times are a clock too, and newer kernels keep them to the nanosecond."""
        if errno == 0 and self._clock_step_ns > 1:
            memory = self._memory()
            for at in _TIMES:
                now = self._number(out + at, 8)
                memory.write(out + at, (now - now % self._clock_step_ns).to_bytes(8, "little"))
        return errno

    # -- the account ------------------------------------------------------------------------

    def _charge(self, more: int) -> bool:
        """Whether the guest may add so many bytes; then they count."""
        if self._limit is None:
            return True
        if self._used + more > self._limit and more <= self._limit:
            self._measure()
        if self._used + more > self._limit:
            return False
        self._used += more
        return True

    def _measure(self) -> None:
        began = time.monotonic()
        if began < self._measure_after:
            return
        self._used = sum(folder_bytes(folder) for folder in self._writable) + self._removed_bytes()
        took = time.monotonic() - began
        self._measure_after = 0.0 if took < _CHEAP_S else began + took / _MEASURE_SHARE

    def _removed_bytes(self) -> int:
        """Of files that have no name any more, and live until they are closed."""
        relay = self._relay()
        found: dict[int, int] = {}
        with self._borrowed() as at:
            for fd in self._open:
                known = relay.call("fd_filestat_get", (fd, at)) == 0
                if known and self._number(at + _LINKS, 8) == 0:
                    found[self._number(at + _INODE, 8)] = max(_ENTRY, self._number(at + _SIZE, 8))
        return sum(found.values())

    @contextmanager
    def _borrowed(self) -> Iterator[int]:
        """Some of the guest's memory, for an answer that is not for the guest."""
        memory = self._memory()
        before = memory.read(0, _FILESTAT)
        try:
            yield 0
        finally:
            memory.write(0, before)

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._memory().read(at, size), "little")


def folder_bytes(folder: Path) -> int:
    """What a folder holds. One with paths too long to be followed counts as full."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    one = entry.stat(follow_symlinks=False)
                    total += max(one.st_size, one.st_blocks * 512, _ENTRY)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            return _FULL
    return total
