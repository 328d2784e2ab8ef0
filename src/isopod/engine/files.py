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

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.folders import Folders
from isopod.engine.locks import MadeLocks
from isopod.engine.memory import GuestMemory
from isopod.engine.relay import Relay
from isopod.volumes.size import ENTRY_BYTES, folder_bytes

# Errors of wasi_snapshot_preview1.
EEXIST, EINVAL, EIO, EMFILE, ENAMETOOLONG, ENOSPC, ENOTSUP = 20, 28, 29, 33, 37, 51, 58
EXDEV = 75
MAX_OPEN = 256  # descriptors beside the preopened folders
ALWAYS_OPEN = 16  # of them, whatever others hold
MAX_PATH_BYTES = 4096
# One read or write: a longer one comes back short, and is continued by whoever wants it whole.
MAX_PASS_BYTES = 1 << 20
_WRITES = frozenset({"fd_write", "fd_pwrite"})
_MAX_BUFFERS = 1024  # IOV_MAX
_BLOCK = 4096
_CREATE, _DIRECTORY = 1, 2  # oflags of path_open
_LOCK = len(b".lock")
# A folder that the engine may read: 64 KiB of entries are a thousand or two.
_MAX_ENGINE_FOLDER = 64 << 10
_FILESTAT = 64  # bytes; nlink, size and the three times (ns) are u64 at these offsets
_INODE, _LINKS, _SIZE, _TIMES = 8, 24, 32, (40, 48, 56)
# Measuring may take this part of the time: a folder of many files is not measured at every write.
_MEASURE_SHARE = 0.2
_CHEAP_S = 0.001


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


@dataclass(frozen=True, slots=True)
class Granted:
    """A folder that a guest was given. `limit`: bytes in it, None for no bound. `lasting`: it
    outlives the instance, and no other instance has it now. `used`: bytes that it held before."""

    folder: Path
    writable: bool
    limit: int | None
    lasting: bool
    used: int = 0


class Account:
    """What a guest has written to one folder, at most."""

    def __init__(self, folder: Path, limit: int | None, used: int) -> None:
        self._folder = folder
        self._limit = limit
        self.used = used
        self._measure_after = 0.0

    def charge(self, more: int, removed: Callable[[], int]) -> bool:
        """Whether so many bytes may be added; then they count. `removed`: bytes of files that have
        no name any more."""
        if self._limit is None:
            return True
        if self.used + more > self._limit and more <= self._limit:
            self._measure(removed)
        if self.used + more > self._limit:
            return False
        self.used += more
        return True

    def _measure(self, removed: Callable[[], int]) -> None:
        now = time.monotonic()
        if now < self._measure_after:
            return
        began = time.thread_time()
        self.used = folder_bytes(self._folder) + removed()
        # By the thread's clock: a thread that had to wait for a core has not measured for so long,
        # and a guest that makes room must be able to use it.
        took = time.thread_time() - began
        self._measure_after = 0.0 if took < _CHEAP_S else now + took / _MEASURE_SHARE


class Files:
    """One guest's. `memory` and `relay` are asked for when there is a call, that is, late."""

    def __init__(
        self,
        granted: Mapping[int, Granted],
        *,
        clock_step_ns: int,
        all_open: OpenFiles,
        memory: Callable[[], GuestMemory],
        relay: Callable[[], Relay],
    ) -> None:
        """`granted`: descriptor -> folder."""
        self._folders = Folders({fd: str(one.folder) for fd, one in granted.items()})
        self._accounts = {
            fd: Account(one.folder, one.limit, one.used)
            for fd, one in granted.items()
            if one.writable
        }
        self._lasting = {fd for fd, one in granted.items() if one.lasting}
        self.used_lasting: set[int] = set()  # of the lasting ones: those that it looked into
        self._locks = MadeLocks()
        # What each descriptor is below of; a guest may give a folder it was granted another number.
        self._roots = {fd: fd for fd in granted}
        self._clock_step_ns = clock_step_ns
        self._memory = memory
        self._relay = relay
        self._all_open = all_open
        self._open: set[int] = set()

    def call(self, name: str, arguments: Sequence[int]) -> int:
        """The errno of one call of a guest's. Numbers are unsigned and not to be trusted."""
        answer: int = getattr(self, f"_{name}")(*arguments)
        return answer

    def is_open(self, fd: int) -> bool:
        """Whether the guest opened it, as a file or a folder."""
        return fd in self._open

    @property
    def open_count(self) -> int:
        """Files and folders that the guest holds open."""
        return len(self._open)

    def used_bytes(self, fd: int) -> int:
        """What it may hold by now, of a folder that was granted: at most so much."""
        account = self._accounts.get(fd)
        return 0 if account is None else account.used

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
        self._look_into(parent)
        if oflags & _CREATE and not self._charge(parent, ENTRY_BYTES):
            return ENOSPC
        errno = self._relay().call("path_open", arguments)
        if errno == 0:
            fd = self._number(out, 4)
            self._opened(fd, self._roots.get(parent))
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
            was_open, root = fd in self._open, self._roots.get(fd)
            self._closed(fd)
            self._closed(to)
            if was_open:
                self._opened(to, root)
            elif root is not None:
                self._roots[to] = root
        return errno

    def _opened(self, fd: int, root: int | None) -> None:
        if root is not None:
            self._roots[fd] = root
        if fd not in self._open:
            self._open.add(fd)
            self._all_open.held += 1

    def _closed(self, fd: int) -> None:
        self._roots.pop(fd, None)
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
        if writes and passed and not self._charge(fd, -(-passed // _BLOCK) * _BLOCK + _BLOCK):
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
        if not self._charge(fd, offset + size):
            return ENOSPC
        return self._relay().call("fd_allocate", (fd, offset, size))

    def _fd_filestat_set_size(self, fd: int, size: int) -> int:
        if not self._charge(fd, size):
            return ENOSPC
        return self._relay().call("fd_filestat_set_size", (fd, size))

    def _path_create_directory(self, fd: int, path: int, path_size: int) -> int:
        arguments = (fd, path, path_size)
        errno = self._make("path_create_directory", fd, arguments, path_size)
        if fd not in self._lasting or not _LOCK < path_size <= MAX_PATH_BYTES:
            return errno
        name = self._memory().read(path, path_size)
        if errno == EEXIST and self._is_stale_lock(fd, path, name):
            self._relay().call("path_remove_directory", arguments)
            errno = self._make("path_create_directory", fd, arguments, path_size)
        if errno == 0 and name.endswith(b".lock"):
            self._locks.add((fd, name))
        return errno

    def _path_remove_directory(self, fd: int, path: int, path_size: int) -> int:
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        if self._locks:
            self._locks.discard((fd, self._memory().read(path, path_size)))
        return self._relay().call("path_remove_directory", (fd, path, path_size))

    def _is_stale_lock(self, fd: int, path: int, name: bytes) -> bool:
        """SQLite's lock is an empty folder beside the database. One that this instance did not
        make is of a holder that was killed: nobody else has the volume now."""
        if not name.endswith(b".lock") or not self._locks.is_anothers((fd, name)):
            return False
        with self._borrowed() as at:
            beside = (fd, 0, path, len(name) - _LOCK, at)
            return self._relay().call("path_filestat_get", beside) == 0

    def _path_symlink(self, old: int, old_size: int, fd: int, new: int, new_size: int) -> int:
        arguments = (old, old_size, fd, new, new_size)
        return self._make("path_symlink", fd, arguments, max(old_size, new_size))

    def _path_link(self, *arguments: int) -> int:
        old_fd, _flags, _old, old_size, fd, _new, new_size = arguments
        if self._crosses(old_fd, fd):
            return EXDEV
        return self._make("path_link", fd, arguments, max(old_size, new_size))

    def _path_rename(self, *arguments: int) -> int:
        """Within one folder that was granted: what comes from another is not in its account."""
        old_fd, _old, old_size, fd, _new, new_size = arguments
        if max(old_size, new_size) > MAX_PATH_BYTES:
            return ENAMETOOLONG
        if self._crosses(old_fd, fd):
            return EXDEV
        return self._relay().call("path_rename", arguments)

    def _crosses(self, fd: int, other: int) -> bool:
        """From one folder that it may write to, to another. (The engine refuses the rest.)"""
        roots = self._roots.get(fd), self._roots.get(other)
        return roots[0] != roots[1] and all(root in self._accounts for root in roots)

    def _make(self, name: str, fd: int, arguments: Sequence[int], path_size: int) -> int:
        self._look_into(fd)
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        if not self._charge(fd, ENTRY_BYTES):
            return ENOSPC
        return self._relay().call(name, arguments)

    def _look_into(self, fd: int) -> None:
        root = self._roots.get(fd)
        if root in self._lasting:
            self.used_lasting.add(root)

    # -- times ------------------------------------------------------------------------------

    def _fd_filestat_get(self, fd: int, out: int) -> int:
        return self._coarse(self._relay().call("fd_filestat_get", (fd, out)), out)

    def _path_filestat_get(self, *arguments: int) -> int:
        fd, _lookup, _path, path_size, out = arguments
        if path_size > MAX_PATH_BYTES:
            return ENAMETOOLONG
        self._look_into(fd)
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

    def _charge(self, fd: int, more: int) -> bool:
        """Whether the guest may add so many bytes where `fd` is; then they count."""
        root = self._roots.get(fd)
        account = None if root is None else self._accounts.get(root)
        if account is None:  # nowhere that it may write to
            return True
        return account.charge(more, lambda: self._removed_bytes(root))

    def _removed_bytes(self, root: int | None) -> int:
        """Of files that have no name any more, and live until they are closed."""
        relay = self._relay()
        found: dict[int, int] = {}
        with self._borrowed() as at:
            for fd in self._open:
                if self._roots.get(fd) != root:
                    continue
                known = relay.call("fd_filestat_get", (fd, at)) == 0
                if known and self._number(at + _LINKS, 8) == 0:
                    size = max(ENTRY_BYTES, self._number(at + _SIZE, 8))
                    found[self._number(at + _INODE, 8)] = size
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
