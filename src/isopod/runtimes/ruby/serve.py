"""One Ruby guest on the host's side: requests one at a time (see `isopod.runtimes.sequential`)."""

from __future__ import annotations

import struct
from typing import Any

from isopod.engine.instance import Instance, Mailbox, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import GuestProtocolError
from isopod.runtimes.guest import Exchange, OutputSink, SocketExchange
from isopod.runtimes.ruby import imports
from isopod.runtimes.ruby.calls import call, quoted
from isopod.runtimes.sequential import Phase, SequentialGuest

_MAILBOX = struct.Struct("<cII")
_LEAST_INBOX = 160 << 10  # a request's head, or a piece of its body


class RubyGuest(SequentialGuest):
    """See `isopod.runtimes.guest.Guest`."""

    restored_bytes = 1 << 20  # a hello of Sinatra
    max_body_read = 64 << 10  # into the inbox
    capacity = 1
    speaker = ""
    sent_bytes = 0  # it reaches no network
    blocked = False

    def __init__(
        self, instance: Instance, scheduler: Scheduler, output: OutputSink, config: bytes
    ) -> None:
        super().__init__(instance, scheduler, output, config)
        self._drawn_before = 0
        instance.on_import = imports.answer

    def exchange(self) -> Exchange:
        return self

    def socket(self) -> SocketExchange | None:
        return None

    @property
    def waiting(self) -> bool:
        return self._instance.state in (State.CALLING, State.SLEEPING)

    @property
    def drew_random(self) -> bool:
        """Whether the app has drawn random bytes: the interpreter does, before it."""
        return self._instance.drawn_bytes > self._drawn_before

    async def prepare_image(self, hook: str) -> dict[str, Any]:
        """End the requests, after which the memory can be captured. Gives the guest's report.
        `hook`: "Module:method" that is called first, or ""."""
        return await self.image([call(f"Isopod::Snapshot.prepare({quoted(hook)})")])

    def _take_own(self, operation: bytes, frame: bytes) -> bool:
        if operation != b"M" or self._phase is not Phase.BOOTING:
            return False
        if len(frame) != _MAILBOX.size:
            raise GuestProtocolError("the guest sent a mailbox that is none")
        _, inbox, size = _MAILBOX.unpack(frame)
        if size < _LEAST_INBOX:
            raise GuestProtocolError(f"the guest has an inbox of {size} bytes")
        self._instance.mailbox = Mailbox(inbox, 0, size)
        self._drawn_before = self._instance.drawn_bytes
        self._instance.reply(b"")
        return True
