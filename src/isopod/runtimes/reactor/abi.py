"""The ABI of reactors, as docs/reactors.md describes it: what a module exports, what it may import,
and where its mailbox is. The guest is hostile: what it says is checked.
"""

from __future__ import annotations

import struct

from isopod.engine.instance import Instance, Mailbox
from isopod.engine.linker import HostImport
from isopod.errors import GuestProtocolError

VERSION = 1
# Hands over what is in the outbox, and returns when the answer is in the inbox.
IMPORTS = (HostImport("isopod", "call", 0, waits=True),)
INITIALIZE, START, SETTINGS, HANDLE = (
    *("_initialize", "isopod_start"),
    *("isopod_settings", "isopod_handle"),
)
# What each is: parameters and results, None for a memory (see `engine.module_check`).
EXPORTS = {"memory": None, START: ("", "i32"), SETTINGS: ("", ""), HANDLE: ("", "")}
OPTIONAL = {INITIALIZE: ("", "")}
_RECORD = struct.Struct("<4I")
RECORD_BYTES = _RECORD.size
# A request's head must go in; and what an instance writes is memory of its own.
_MIN_BOX, _MAX_BOX = 128 << 10, 1 << 20


def pack_record(box: Mailbox) -> bytes:
    """What an image has beside the guest's memory: where its mailbox is. It begins the page that
    follows that memory in the image."""
    return _RECORD.pack(VERSION, box.inbox, box.outbox, box.size)


def read_record(instance: Instance, address: int) -> Mailbox:
    """What `isopod_start` gave the address of. Raises GuestProtocolError."""
    memory = instance.memory()
    if address + RECORD_BYTES > len(memory):
        raise GuestProtocolError("isopod_start gave an address outside of the memory")
    return parse_record(bytes(memory[address : address + RECORD_BYTES]), len(memory))


def parse_record(data: bytes, memory_bytes: int) -> Mailbox:
    """Raises GuestProtocolError."""
    version, inbox, outbox, size = _RECORD.unpack(data)
    if version != VERSION:
        raise GuestProtocolError(f"the module speaks version {version} of the ABI, not {VERSION}")
    if not _MIN_BOX <= size <= _MAX_BOX:
        raise GuestProtocolError(f"the module's mailbox has {size} bytes")
    if max(inbox, outbox) + size > memory_bytes or abs(inbox - outbox) < size:
        raise GuestProtocolError("the module's mailbox is not in its memory")
    return Mailbox(inbox, outbox, size)
