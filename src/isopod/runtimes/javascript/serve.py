"""One JavaScript guest on the host's side: its boot, its turns, and its requests.

A guest runs in turns: one call that takes everything in its inbox and ends when no promise has a
job left. What it said is read then. Between turns it is only memory, and that can be an image.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from isopod.engine.instance import Arguments, Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.host.capabilities import World
from isopod.runtimes import frames
from isopod.runtimes.base import LentVolume
from isopod.runtimes.guest import InstanceGuest, OutputSink
from isopod.runtimes.javascript import items
from isopod.runtimes.javascript.exchange import JavaScriptExchange
from isopod.runtimes.javascript.fetching import Fetches
from isopod.runtimes.javascript.inbox import Inbox
from isopod.runtimes.javascript.kv import KeyValues
from isopod.runtimes.javascript.positions import Locating
from isopod.runtimes.javascript.rejections import Rejections
from isopod.runtimes.javascript.socket import JavaScriptSocket

if TYPE_CHECKING:  # see `runtime`
    from isopod.runtimes.javascript.subtle import Subtle

_Made = TypeVar("_Made", bound=JavaScriptExchange)

_MAX_OUTPUT = 32 << 10
_MAX_RANDOM = 64 << 10
_MAX_TIMER_MS = 1 << 31


class _Phase(enum.Enum):
    BOOTING = enum.auto()
    READY = enum.auto()
    IMAGING = enum.auto()  # takes no more requests; its memory is about to become an image
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class Start:
    """`turn`: the handle of the guest's function. `app`: what `isopod_app` takes; None: the
    instance is restored from an image that holds its app. `site`: where its bundle is.
    `volumes`: what its key-value bindings are kept in."""

    turn: int
    app: bytes | None
    env: Mapping[str, str]
    site: Path
    volumes: Sequence[LentVolume]


class JavaScriptGuest(InstanceGuest):
    """See `isopod.runtimes.guest.Guest`."""

    restored_bytes = 768 << 10  # Hono's hello, with its stack
    capacity = 1000  # how many it gets is the app's to say, or the gateway's default
    speaker = ""  # of several it cannot be told

    def __init__(
        self,
        instance: Instance,
        scheduler: Scheduler,
        output: OutputSink,
        start: Start,
        *,
        world: World | None,
        app: str,
        subtle: Subtle,
    ) -> None:
        """`world`: what it may reach as `app`, its label; None: no network. `subtle`: its own."""
        super().__init__(instance)
        self._scheduler = scheduler
        self._output = output
        self._start = start
        self._app = start.app
        self._phase = _Phase.BOOTING
        self._inbox = Inbox()
        self._exchanges: dict[int, JavaScriptExchange] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = False  # a timer of the guest's is
        self._collecting = False
        self._report: dict[str, Any] = {}
        self._fetches = Fetches(world, app=app, say=self._say, room=self._inbox.room)
        self._rejections = Rejections(instance, start.turn)
        self._subtle = subtle
        self._values = KeyValues(start.volumes)
        instance.on_call = self._on_call
        instance.on_exit = self._on_exit
        instance.on_import = self._on_import

    @property
    def idle(self) -> bool:
        return self._phase is _Phase.READY and len(self._exchanges) < self.capacity

    @property
    def waiting(self) -> bool:
        return self._instance.state is not State.READY

    @property
    def blocked(self) -> bool:
        return self._instance.computes

    @property
    def sent_bytes(self) -> int:
        """By its fetches; what it answers its clients is not in it."""
        return self._fetches.sent_bytes

    async def start(self) -> None:
        started = self._wait()
        said = {"env": dict(self._start.env), "bindings": self._values.names}
        settings = json.dumps(said).encode()
        self._inbox.put(items.pack(b"c", 0, settings))
        self._scheduler.wake(self._instance)
        await started

    def exchange(self) -> JavaScriptExchange:
        return self._new(JavaScriptExchange)

    def socket(self) -> JavaScriptSocket:
        return self._new(JavaScriptSocket)

    def _new(self, kind: type[_Made]) -> _Made:
        self._count = (self._count % 0xFFFF_FFFF) + 1
        made = kind(
            self._count,
            say=self._say,
            room=self._inbox.room,
            stop=self._stop,
            memory_mib=self._instance.spec.memory_bytes >> 20,
        )
        if self._phase is _Phase.READY:
            self._exchanges[made.number] = made
        else:
            made.close(GuestFailed("the guest was ended"))
        return made

    def _stop(self, number: int) -> None:
        """Nothing but its end stops a guest in the middle of a turn, or gives back what the
        request holds; one that serves others goes on."""
        others = len(self._exchanges) - (number in self._exchanges)
        if not others or self._instance.computes:
            self.close()
        elif (exchange := self._exchanges.pop(number, None)) is not None:
            self._say(b"g", number, b"")
            exchange.close(GuestFailed("the request was ended"))

    @property
    def used_values(self) -> bool:
        """Something was asked of a key-value binding."""
        return self._values.used

    async def prepare_image(self) -> dict[str, Any]:
        """Afterwards the memory can be captured. Gives the guest's report."""
        if self._phase is not _Phase.READY or self._exchanges:
            raise RuntimeError(f"a guest in phase {self._phase.name} makes no image")
        self._phase = _Phase.IMAGING
        self._collecting = True
        prepared = self._wait()
        self._say(b"s", 0, b"")
        await prepared
        return self._report

    def close(self) -> None:
        self._end(GuestFailed("the guest was ended"))

    # -- turns ------------------------------------------------------------------------------

    def _say(self, operation: bytes, exchange: int, data: bytes) -> None:
        """Queue an item; a turn takes it as soon as the guest has ended the one it is in."""
        if self._phase is _Phase.GONE:
            return
        try:
            self._inbox.put(items.pack(operation, exchange, data))
        except GuestProtocolError as error:
            self._end(error)
            return
        self._run()

    def _run(self) -> None:
        if self._instance.state is State.ENDED and self._next():
            self._scheduler.wake(self._instance)

    def _next(self) -> bool:
        """Begin what is to be done next; whether there is something."""
        call: tuple[str, Arguments] | None = self._rejections.next_call()
        if call is None and (self._inbox or self._due):
            self._due = False
            self._fill_inbox()
            call = ("isopod_turn", (self._start.turn,))
        elif call is None and self._app is not None:
            call, self._app = ("isopod_app", self._app), None
        elif call is None and self._collecting:
            call, self._collecting = ("qjs_run_gc", None), False
        if call is None:
            return False
        self._instance.then([call])
        return True

    def _fill_inbox(self) -> None:
        box = self._instance.mailbox
        room = (0 if box is None else box.size) - 4
        self._instance.put_inbox(self._inbox.take(room))

    def _on_exit(self, error: IsopodError | None) -> None:
        if error is not None:
            self._end(self._explained(error))
            return
        try:
            self._take(self._instance.take_outbox())
            if self._instance.returned and self._instance.last_call in _TURNS:
                limit = self._instance.spec.memory_bytes >> 20
                raise MemoryLimitExceeded(f"the app reached its memory limit of {limit} MiB")
            if self._next():
                return
        except IsopodError as bad:
            self._end(bad)
            return
        self._rest()

    def _rest(self) -> None:
        """Nothing is left to be done now."""
        if self._phase is _Phase.BOOTING:
            if self._start.app is None:
                self._phase = _Phase.READY
                self._settle()
            elif self._timer is None and not self._fetches.are_open:
                self._end(
                    AppFailedToStart(
                        "a top-level await of the app never settles",
                        hint="nothing that it waits for can come while the module is loaded",
                    )
                )
        elif self._phase is _Phase.IMAGING:
            self._settle()
        elif not self._exchanges:
            # What nobody waits for any more goes no further.
            self._cancel_timer()
            self._fetches.close()

    def _explained(self, error: IsopodError) -> IsopodError:
        said = str(error.details.pop("stderr", ""))
        if said:
            self._output("stderr", said.encode())
        if self._phase is _Phase.BOOTING and type(error) is GuestFailed:
            return AppFailedToStart(error.message, details={**error.details, "traceback": said})
        return error

    def _end(self, error: IsopodError) -> None:
        """Safe to call twice."""
        if self._phase is _Phase.GONE:
            return
        self._phase = _Phase.GONE
        self._cancel_timer()
        self._fetches.close()
        self._values.close()
        self._instance.close()
        self._inbox.clear()
        exchanges, self._exchanges = self._exchanges, {}
        for one in exchanges.values():
            one.close(error)
        self._settle(error=error)

    # -- what the guest says ----------------------------------------------------------------

    def _on_call(self, frame: bytes) -> None:
        try:
            answer = self._take(frame)
        except IsopodError as error:
            self._end(error)
            return
        if self._instance.state is State.CALLING:
            self._instance.reply(answer)

    def _on_import(self, name: str, numbers: list[int]) -> int:
        if name == "host_promise_rejection":
            self._rejections.told(*numbers)
        return 0

    def _take(self, frame: bytes) -> bytes:
        """Gives the answer to the last item, for those that have one."""
        asked: tuple[bytes, bytes] | None = None
        located = Locating(self._start.site)
        for operation, number, data in items.unpack(frame):
            asked = None
            if operation == b"L":
                if len(data) > _MAX_OUTPUT:
                    raise GuestProtocolError(f"the guest sent {len(data)} bytes of output at once")
                said = located(data)
                self._output("stdout" if number == 1 else "stderr", said)
            elif operation in _ASK:
                asked = (operation, data)
            elif operation == b"T":
                self._set_timer(min(int.from_bytes(data[:4], "little"), _MAX_TIMER_MS))
            elif operation in _FETCH:
                self._fetches.take(operation, number, data)
            elif operation in (b"Q", b"R") and self._phase is _Phase.BOOTING:
                self._booted(operation, data)
            elif operation == b"I" and self._phase is _Phase.IMAGING:
                self._report = frames.parse_report(data)
            elif (exchange := self._exchanges.get(number)) is not None:
                exchange.take(operation, data)
                if operation == b"F":
                    del self._exchanges[number]
            elif self._phase is not _Phase.READY:
                raise GuestProtocolError(
                    f"the guest sent operation {operation!r} while it was "
                    f"{self._phase.name.lower()}"
                )
        # For the last item alone: a frame has room for thousands that ask.
        return self._answer(*asked) if asked else b""

    def _answer(self, operation: bytes, data: bytes) -> bytes:
        if operation == b"r":
            return os.urandom(min(int.from_bytes(data[:4], "little"), _MAX_RANDOM))
        return self._subtle.call(data) if operation == b"y" else self._values.call(data)

    def _booted(self, operation: bytes, data: bytes) -> None:
        if operation == b"R":
            raise frames.boot_error(Locating(self._start.site)(data))
        self._phase = _Phase.READY
        self._settle()

    # -- its timers -------------------------------------------------------------------------

    def _set_timer(self, ms: int) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(ms / 1e3, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._due = True
        self._run()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_ASK = frozenset({b"r", b"y", b"K"})
_FETCH = frozenset({b"f", b"u", b"v", b"k", b"a"})
_TURNS = frozenset({"isopod_turn", "isopod_app", "isopod_reject"})
