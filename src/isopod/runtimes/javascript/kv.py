"""The key-value bindings of an app: files in its volumes, one for each key.

A call is answered at once, like those of WASI files, so a guest pays for it as for its own CPU. A
volume is its tenant's: what it holds may have been copied in, so nothing in it is trusted, and no
link in it is followed. There is one writer (docs/volumes.md), so what is known of a folder is true
until the guest ends.

A call: u8 the binding's number, then g u32 offset, key | d key | l u8 count, u16 length and prefix,
key it begins after | p u8 of flags (1 begins, 2 is the last piece), u16 length and header, u16
length and key, a piece. An answer: \\0 and what is asked for, or \\1 and why not. The header is
the guest's own, JSON: when the value expires, and its metadata.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from pathlib import Path

from isopod.errors import GuestProtocolError
from isopod.runtimes.base import LentVolume

MAX_KEY = 180  # bytes; as base64 it is a file's name
MAX_VALUE = 8 << 20
MAX_KEYS = 20_000  # of one volume: their names are in memory while an instance lists or adds
# Of what lies in a volume's folder: it may have been copied in.
_MAX_LOOKED_AT = MAX_KEYS + 1000
_MAX_HEADER = 2 << 10
_MAX_LISTED = 100  # at once
_PIECE = 128 << 10
_BLOCK = 16 << 10  # what a file counts at least, as in the engine's accounts
_FOLDER = "kv"
_TEMPORARY = ".new-"
_MAGIC = b"ikv1"
_HEAD = struct.Struct("<4sI")  # of a file: magic, length of the header
_BEGINS, _LAST = 1, 2


class RefusedError(Exception):
    """What an app may ask and does not get."""


class KeyValues:
    """One guest's bindings. `used`: something was asked of one."""

    def __init__(self, volumes: Sequence[LentVolume]) -> None:
        self.names = tuple(binding_name(one.mount) for one in volumes)
        self._stores = [_Store(one) for one in volumes]
        self.used = False

    def call(self, frame: bytes) -> bytes:
        """Raises GuestProtocolError."""
        self.used = True
        if len(frame) < 2 or frame[0] >= len(self._stores):
            raise GuestProtocolError("the guest asked for a binding that is not there")
        store, operation, rest = self._stores[frame[0]], frame[1:2], frame[2:]
        try:
            if operation == b"g":
                return b"\0" + store.read(*_numbered("<I", rest))
            if operation == b"d":
                store.delete(rest)
                return b"\0"
            if operation == b"l":
                count, rest = _numbered("<B", rest)
                prefix, after = _text(rest)
                return b"\0" + store.names_after(prefix, after, count)
            if operation == b"p":
                flags, rest = _numbered("<B", rest)
                header, rest = _text(rest)
                key, piece = _text(rest)
                store.write(flags, header, key, piece)
                return b"\0"
        except RefusedError as error:
            return f"\1{error}".encode()
        except OSError as error:
            return f"\1the volume cannot be used: {error.strerror}".encode()
        raise GuestProtocolError(f"the guest sent the operation {operation!r} of a binding")

    def close(self) -> None:
        """Before the volumes are somebody else's. Safe to call twice."""
        for one in self._stores:
            one.close()


def binding_name(mount: str) -> str:
    """/kv is `env.KV`; /my/sessions-2, `env.SESSIONS_2`."""
    return Path(mount).name.upper().replace("-", "_").replace(".", "_")


class _Store:
    def __init__(self, volume: LentVolume) -> None:
        self._volume = volume
        self._used = volume.used_bytes
        self._folder: int | None = None
        self._keys: list[bytes] | None = None
        self._is_overfull = False
        self._writing: _Writing | None = None

    def read(self, offset: int, key: bytes) -> bytes:
        """b"" if there is none; else at 0: u32 length of the value, u32 of the header, it, and the
        value's beginning; later the next piece."""
        fd = self._open(key)
        if fd is None:
            return b""
        try:
            size, header = _head(fd)
            start = _HEAD.size + len(header)
            if offset:
                return os.pread(fd, _PIECE, start + offset)
            head = struct.pack("<II", size - start, len(header)) + header
            return head + os.pread(fd, _PIECE, start)
        finally:
            os.close(fd)

    def delete(self, key: bytes) -> None:
        name = _file_name(key)
        folder = self._opened()
        with contextlib.suppress(FileNotFoundError):
            freed = self._counted(folder, name)
            os.unlink(name, dir_fd=folder)
            self._used -= freed
            if self._keys is not None:
                self._forget(key)

    def names_after(self, prefix: bytes, after: bytes, count: int) -> bytes:
        """Each with its header: u16 length, key, u16 length, header. In the order of the keys."""
        keys = self._known()
        if len(keys) > MAX_KEYS:
            raise RefusedError(f"the volume holds more than {MAX_KEYS:,} keys")
        at = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        found = b""
        for key in keys[at : at + min(count, _MAX_LISTED)]:
            if not key.startswith(prefix):
                break
            header = b""
            with contextlib.suppress(RefusedError):
                fd = self._open(key)
                if fd is not None:
                    try:
                        header = _head(fd)[1]
                    finally:
                        os.close(fd)
            found += struct.pack("<H", len(key)) + key + struct.pack("<H", len(header)) + header
        return found

    def write(self, flags: int, header: bytes, key: bytes, piece: bytes) -> None:
        if flags & _BEGINS:
            self._give_up()
            name = _file_name(key)
            if len(header) > _MAX_HEADER:
                raise RefusedError(f"the metadata has at most {_MAX_HEADER} bytes")
            keys = self._known()
            at = bisect_left(keys, key)
            if len(keys) >= MAX_KEYS and keys[at : at + 1] != [key]:
                raise RefusedError(f"a volume holds at most {MAX_KEYS:,} keys")
            self._writing = _Writing(self._opened(), key, name)
            self._writing.add(_HEAD.pack(_MAGIC, len(header)) + header)
            self._writing.begins_at = self._writing.size
        writing = self._writing
        if writing is None:
            raise GuestProtocolError("the guest goes on with a value that it has not begun")
        try:
            if writing.size + len(piece) > writing.begins_at + MAX_VALUE:
                raise RefusedError(f"a value has at most {MAX_VALUE:,} bytes")
            writing.add(piece)
            more = _blocks(writing.size)
            if self._used + more > self._volume.size_bytes:
                raise RefusedError("no space left on the volume")
            if flags & _LAST:
                freed = self._counted(writing.folder, writing.name)
                writing.keep()
                self._writing = None
                self._used += more - freed
                keys = self._known()
                at = bisect_left(keys, key := writing.key)
                if keys[at : at + 1] != [key]:
                    insort(keys, key)
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        self._give_up()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _give_up(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.drop()

    def _opened(self) -> int:
        if self._folder is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            volume = os.open(self._volume.folder, flags)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(_FOLDER, 0o700, dir_fd=volume)
                self._folder = os.open(_FOLDER, flags, dir_fd=volume)
            finally:
                os.close(volume)
        return self._folder

    def _open(self, key: bytes) -> int | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(_file_name(key), flags, dir_fd=self._opened())
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise RefusedError("what the volume holds for the key is no value")
        return fd

    def _counted(self, folder: int, name: str) -> int:
        try:
            return _blocks(os.stat(name, dir_fd=folder, follow_symlinks=False).st_size)
        except FileNotFoundError:
            return 0

    def _known(self) -> list[bytes]:
        """All keys, or so many that they are too many; sorted. The loop waits for it, so it gives
        up, for good, where a folder holds too much."""
        if self._keys is None:
            if self._is_overfull:
                raise RefusedError("the volume's folder `kv` holds too many files")
            found: list[bytes] = []
            with os.scandir(self._opened()) as entries:
                for looked_at, entry in enumerate(entries):
                    if looked_at >= _MAX_LOOKED_AT:
                        self._is_overfull = True
                        return self._known()
                    if entry.name.startswith(_TEMPORARY):
                        # Of an instance that was killed: nobody else writes here.
                        os.unlink(entry.name, dir_fd=self._opened())
                    elif (key := _key_of(entry.name)) is not None:
                        found.append(key)
                    if len(found) > MAX_KEYS:
                        break
            self._keys = sorted(found)
        return self._keys

    def _forget(self, key: bytes) -> None:
        keys = self._known()
        at = bisect_left(keys, key)
        if keys[at : at + 1] == [key]:
            del keys[at]


class _Writing:
    """A value that is not whole yet: beside its place, until `keep`."""

    def __init__(self, folder: int, key: bytes, name: str) -> None:
        self.folder, self.key, self.name = folder, key, name
        self.size = 0
        self.begins_at = 0  # the value, after the head
        self._temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._temporary, flags, 0o600, dir_fd=folder)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def keep(self) -> None:
        os.rename(self._temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        os.close(self._fd)

    def drop(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self.folder)


def _head(fd: int) -> tuple[int, bytes]:
    """A file's size, and its header."""
    size = os.fstat(fd).st_size
    magic, length = _HEAD.unpack(os.pread(fd, _HEAD.size, 0).ljust(_HEAD.size, b"\0"))
    fits = length <= _MAX_HEADER and _HEAD.size + length <= size <= MAX_VALUE + (4 << 10)
    if magic != _MAGIC or not fits:
        raise RefusedError("what the volume holds for the key is no value")
    return size, os.pread(fd, length, _HEAD.size)


def _file_name(key: bytes) -> str:
    if not 1 <= len(key) <= MAX_KEY:
        raise RefusedError(f"a key has 1 to {MAX_KEY} bytes")
    return base64.urlsafe_b64encode(key).decode()


def _key_of(name: str) -> bytes | None:
    try:
        key = base64.b64decode(name.encode(), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return (
        key if 1 <= len(key) <= MAX_KEY and base64.urlsafe_b64encode(key).decode() == name else None
    )


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK + _BLOCK


def _numbered(kind: str, data: bytes) -> tuple[int, bytes]:
    size = struct.calcsize(kind)
    if len(data) < size:
        raise GuestProtocolError("the guest sent half a call of a binding")
    (number,) = struct.unpack_from(kind, data)
    return int(number), data[size:]


def _text(data: bytes) -> tuple[bytes, bytes]:
    size, rest = _numbered("<H", data)
    if size > len(rest):
        raise GuestProtocolError("the guest sent half a call of a binding")
    return rest[:size], rest[size:]
