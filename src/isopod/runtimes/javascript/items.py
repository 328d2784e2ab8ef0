"""The items in a mailbox, host side (described in `guest/serve.js`). The guest is hostile: what it
wrote is checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from isopod.errors import GuestProtocolError

_HEAD = struct.Struct("<cII")


def pack(operation: bytes, exchange: int, data: bytes = b"") -> bytes:
    return _HEAD.pack(operation, exchange, len(data)) + data


def unpack(frame: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Operation, exchange, bytes. Raises GuestProtocolError."""
    at = 0
    while at < len(frame):
        if at + _HEAD.size > len(frame):
            raise GuestProtocolError("the guest sent half an item")
        operation, exchange, size = _HEAD.unpack_from(frame, at)
        at += _HEAD.size
        if at + size > len(frame):
            raise GuestProtocolError(f"the guest sent an item of {size} bytes that is not whole")
        yield operation, exchange, frame[at : at + size]
        at += size
