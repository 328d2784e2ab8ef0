"""One reactor on the host's side: its start, and its requests, one at a time.

A request is one call of `isopod_handle`. What the guest says is in its outbox when that returns, or
when it calls the host on the way: for a piece of the request's body, or because its response goes
out in pieces. It goes on when the piece has been taken: that is what slows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isopod.engine.instance import Arguments, Instance, State
from isopod.engine.kept_globals import LOAD, SAVE
from isopod.engine.scheduler import Scheduler
from isopod.engine.streams import STDOUT
from isopod.errors import (
    AppFailedToStart,
    BadRequest,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
)
from isopod.host.capabilities import World
from isopod.host.sockets import GuestSockets
from isopod.runtimes.frames import request_frame
from isopod.runtimes.guest import (
    BodyReader,
    GuestRequest,
    GuestResponse,
    OutputSink,
    SocketExchange,
)
from isopod.runtimes.reactor import abi
from isopod.runtimes.sequential import MAX_OUTPUT, Phase, SequentialGuest

_MAX_LAST_WORDS = 16 << 10
# What a guest may say as it returns, and only then; what else it says is a call.
_LAST = frozenset({b"S", b"E", b"X"})
# In the traceback of a Go program that waits for connections.
_LISTENS = ("net/http.(*Server).Serve(", "net.(*TCPListener)", "net.(*netFD).accept", "net.Listen(")


@dataclass(frozen=True, slots=True)
class Start:
    """`initialize`: it exports `_initialize`. `outbox`: of an instance that is restored from an
    image, where its globals are; None: it boots."""

    initialize: bool
    env: Mapping[str, str]
    outbox: int | None = None


class ReactorGuest(SequentialGuest):
    """See `isopod.runtimes.guest.Guest` and `isopod.engine.streams.Streams`."""

    restored_bytes = 256 << 10  # Go's hello
    max_body_read = 64 << 10
    capacity = 1
    speaker = ""
    blocked = False

    def __init__(
        self,
        instance: Instance,
        scheduler: Scheduler,
        output: OutputSink,
        start: Start,
        *,
        world: World | None,
        app: str,
    ) -> None:
        """`world`: what it may reach as `app`, its label; None: no network."""
        super().__init__(instance, scheduler, output, b"")
        self._sockets = GuestSockets(world, app=app, answer=self._reply, say=self._say_ours)
        instance.give_sockets(self._sockets)
        self._start = start
        self._last_words = b""
        instance.streams = self

    @property
    def sent_bytes(self) -> int:
        return self._sockets.sent_bytes

    def exchange(self) -> ReactorGuest:
        return self

    def socket(self) -> SocketExchange | None:
        return None

    def first_calls(self) -> list[tuple[str, Arguments]]:
        """What the instance is started with."""
        if self._start.outbox is not None:
            return [(LOAD, (self._start.outbox + 4,))]
        return [(abi.INITIALIZE, None)] if self._start.initialize else []

    async def start(self) -> None:
        """Raises AppFailedToStart, and whatever ends a guest."""
        try:
            await self._step()
            if self._start.outbox is None:
                await self._call(abi.START)
                address = self._instance.returned
                if not address:
                    raise AppFailedToStart("the app's setup failed")
                self._instance.mailbox = abi.read_record(self._instance, address)
            settings = "".join(f"{name}={value}\0" for name, value in self._start.env.items())
            self._put(settings.encode("utf-8", "replace"))
            await self._call(abi.SETTINGS)
        except IsopodError as error:
            self.close()
            raise _boot_error(error, self._last_words.decode("utf-8", "replace")) from error
        self._phase = Phase.IDLE

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        if self._phase is Phase.GONE:
            raise GuestFailed("the guest was ended")
        if self._phase is not Phase.IDLE:
            raise RuntimeError(f"a guest in phase {self._phase.name} takes no request")
        self._put(request_frame(request))
        self._phase = Phase.HEAD
        self._read_body = read_body
        self._abandoned = False
        self._client_wait.forget()
        self._instance.then([(abi.HANDLE, None)])
        response: GuestResponse = await self._step()
        return response

    async def keep_globals(self) -> None:
        """Afterwards the memory can be captured; the guest serves no more."""
        box = self._instance.mailbox
        if not self.idle or box is None:
            raise RuntimeError(f"a guest in phase {self._phase.name} makes no image")
        self._phase = Phase.IMAGING
        memory = self._instance.memory()
        for at in (box.inbox, box.outbox):  # requests that it was warmed with
            memory[at : at + box.size] = bytes(box.size)
        await self._call(SAVE, box.outbox + 4)

    def close(self) -> None:
        self._sockets.close()
        super().close()

    # -- between the loop and the guest -----------------------------------------------------

    def _broken(self, error: IsopodError) -> None:
        self._sockets.close()
        super()._broken(error)

    def _reply(self) -> None:
        if self._instance.state is State.CALLING:
            self._instance.reply(b"")
            self._scheduler.wake(self._instance)

    def _say_ours(self, text: str) -> None:
        self._output("isopod", f"{text}\n".encode())

    def _put(self, data: bytes) -> None:
        box = self._instance.mailbox
        if box is None or len(data) + 4 > box.size:
            raise BadRequest("what the app is told does not go into its mailbox")
        self._instance.put_inbox(data)

    async def _call(self, export: str, *numbers: int) -> None:
        self._instance.then([(export, numbers)])
        await self._step()

    def _on_exit(self, error: IsopodError | None) -> None:
        """A call into the guest ended."""
        if error is not None:
            self._broken(error)
        elif self._phase in (Phase.BOOTING, Phase.IMAGING):
            self._settle()
        else:
            try:
                frame = self._instance.take_outbox()
                if frame[:1] not in _LAST:
                    raise GuestProtocolError(f"the guest returned with operation {frame[:1]!r}")
                self._dispatch(frame[:1], frame)
            except IsopodError as bad:
                self._broken(bad)

    def _on_call(self, frame: bytes) -> None:
        if self._phase in (Phase.BOOTING, Phase.IMAGING) or frame[:1] in _LAST:
            was = self._phase.name.lower()
            self._broken(
                GuestProtocolError(f"the guest called with operation {frame[:1]!r} while {was}")
            )
        else:
            super()._on_call(frame)

    # -- its standard streams, on its fiber -------------------------------------------------

    def read(self, most: int) -> bytes:  # noqa: ARG002  there is none
        return b""

    def write(self, fd: int, data: bytes) -> bool:
        for at in range(0, len(data), MAX_OUTPUT):
            self._output("stdout" if fd == STDOUT else "stderr", data[at : at + MAX_OUTPUT])
        if self._phase is Phase.BOOTING:
            self._last_words = (self._last_words + data)[-_MAX_LAST_WORDS:]
        return True


def _boot_error(error: IsopodError, said: str) -> IsopodError:
    """Why a start failed, with what the program printed last."""
    if type(error) not in (GuestFailed, AppFailedToStart):
        return error
    details = {**error.details, "traceback": said}
    if any(one in said for one in _LISTENS):
        return AppFailedToStart(
            "the program listens on a port, which nothing in WebAssembly can",
            hint="serve with isopod.Serve(handler) in place of http.ListenAndServe",
            details=details,
        )
    first = next((line for line in said.splitlines() if line.strip()), "")
    why = first or str(error.details.get("trap", "")).partition("\n")[0]
    text = f"{error.message}: {why[:200]}" if why else error.message
    return AppFailedToStart(text, details=details)
