"""One Python guest on the host's side: its boot, and its requests over the one host call. Those of
an ASGI app, many at once, are in `exchanges`.

Every frame arrives in `_on_call`, on the loop, after the guest was suspended. What a guest may say
depends on where it is (`_Phase`); anything else ends it with GuestProtocolError.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from typing import Any

from isopod.engine.instance import Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    ClientDisconnected,
    EngineError,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.host import capabilities
from isopod.host.capabilities import Capabilities, World
from isopod.host.connections import Connections
from isopod.runtimes import frames
from isopod.runtimes.guest import (
    BodyReader,
    Exchange,
    GuestRequest,
    GuestResponse,
    InstanceGuest,
    OutputSink,
    SocketExchange,
)
from isopod.runtimes.python.exchanges import CAPACITY, Exchanges
from isopod.runtimes.python.socket_exchange import PythonSocket

_MAX_BODY_READ = 256 << 10
# The guest sends output in such pieces; each is split into lines on the loop.
_MAX_OUTPUT = 32 << 10


class _Phase(enum.Enum):
    BOOTING = enum.auto()
    IDLE = enum.auto()
    HEAD = enum.auto()  # has a request, has not answered
    BODY = enum.auto()  # is sending a response in pieces
    SERVING = enum.auto()  # has any number of exchanges, on an event loop of its own
    ENDING = enum.auto()  # has sent a whole response and works on, for its own sake
    IMAGING = enum.auto()  # takes no more requests; its memory is about to become an image
    GONE = enum.auto()


class PythonGuest(InstanceGuest):
    """See `isopod.runtimes.guest.Guest`."""

    restored_bytes = 2 << 20  # 1.5 MiB for Flask after three requests

    def __init__(
        self,
        instance: Instance,
        scheduler: Scheduler,
        output: OutputSink,
        config: bytes = b"",
        *,
        world: World,
        app: str,
        tenant: str,
    ) -> None:
        """`config`: JSON that a restored guest asks for (its settings, its hook). `world`: what
        its capabilities are made of, for `app` (its label) of `tenant`."""
        super().__init__(instance)
        self._scheduler = scheduler
        self._output = output
        self._phase = _Phase.BOOTING
        self._read_body: BodyReader | None = None
        self._body_task: asyncio.Task[None] | None = None
        self._config = config
        self._on_addresses: Callable[[bytes], None] = lambda _addresses: None
        self._report: dict[str, Any] = {}
        self._abandoned = False
        self._waits_since: float | None = None
        self._client_wait_s = 0.0
        self._world, self._app, self._tenant = world, app, tenant
        self._capabilities: Capabilities | None = None
        self._many: Exchanges | None = None
        self._speaker = 0
        instance.on_call = self._on_call
        instance.on_exit = self._on_exit

    @property
    def idle(self) -> bool:
        return self._phase in (_Phase.IDLE, _Phase.SERVING)

    @property
    def capacity(self) -> int:
        return 1 if self._many is None else CAPACITY

    @property
    def speaker(self) -> str:
        return "" if self._many is None else self._many.request_id(self._speaker)

    def exchange(self) -> Exchange:
        return self if self._many is None else self._many.new()

    def socket(self) -> SocketExchange | None:
        if self._many is None:  # WSGI has none
            return None
        return PythonSocket(self._many.next_number(), self._many)

    @property
    def ended(self) -> bool:
        """As its own exchange."""
        return self._phase is _Phase.IDLE

    def stop(self) -> None:
        self.close()

    @property
    def waiting(self) -> bool:
        return self._instance.state in (State.CALLING, State.SLEEPING)

    @property
    def blocked(self) -> bool:
        many = self._many
        return many is not None and (many.stuck or (self.waiting and not many.waits))

    @property
    def client_wait_s(self) -> float:
        since = self._waits_since
        return self._client_wait_s + (time.monotonic() - since if since is not None else 0.0)

    @property
    def sent_bytes(self) -> int:
        """By its connections; what it answers its clients is not in it."""
        return 0 if self._capabilities is None else self._capabilities.connections.sent_bytes

    async def start(self) -> None:
        await self._step()

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        if self._phase is _Phase.GONE:
            # By what it did when its last response was whole and nobody listened any more.
            raise GuestFailed("the guest was ended")
        if self._phase is not _Phase.IDLE:
            raise RuntimeError(f"a guest in phase {self._phase.name} takes no request")
        frame = frames.request_frame(request)
        self._phase = _Phase.HEAD
        self._read_body = read_body
        self._abandoned = False
        self._client_wait_s = 0.0
        self._instance.reply(frame)
        response: GuestResponse = await self._step()
        return response

    async def next_chunk(self) -> bytes | None:
        if self._phase is _Phase.GONE:
            # Not the end of the response: the client must not take a part for the whole.
            raise GuestFailed("the guest was ended")
        if self._phase is not _Phase.BODY:
            return None
        self._end_client_wait()
        self._instance.reply(b"gone" if self._abandoned else b"")
        chunk: bytes | None = await self._step()
        return chunk

    async def finish(self) -> None:
        if self._phase is _Phase.ENDING:
            await self._step()

    async def prepare_image(
        self, turn: bytes, on_addresses: Callable[[bytes], None]
    ) -> dict[str, Any]:
        """End the requests and run `turn`, after which the memory can be captured. Gives the
        guest's report. `on_addresses` gets the addresses (u32 each) of the guest's objects while
        these are alive: afterwards, an address may be of freed memory."""
        many = self._many
        if not self.idle or many:
            raise RuntimeError(f"a guest in phase {self._phase.name} makes no image")
        self._phase = _Phase.IMAGING
        self._on_addresses = on_addresses
        self._instance.then([("turn", turn)])
        if many is None:
            self._instance.reply(b"")
        else:
            many.tell(b"z", 0)
        await self._step()
        return self._report

    def abandon(self) -> None:
        self._abandoned = True

    def close(self) -> None:
        self._phase = _Phase.GONE
        self._instance.close()
        if self._capabilities is not None:
            self._capabilities.close()
        if self._body_task is not None:
            self._body_task.cancel()
        self._broken(GuestFailed("the guest was ended"))

    # -- between the loop and the guest -----------------------------------------------------

    async def _step(self) -> Any:
        """Run the guest until it has something for us."""
        if self._phase is _Phase.GONE:
            raise GuestFailed("the guest was ended")
        stepped = self._wait()
        self._scheduler.wake(self._instance)
        return await stepped

    def _on_exit(self, error: IsopodError | None) -> None:
        if error is None and self._phase is _Phase.IMAGING:
            self._settle(None)
            return
        if error is None:
            # Its interpreter gave up: without memory there is no frame to say so in.
            error = self._instance.explain(GuestFailed("the guest ended instead of answering"))
        said = str(error.details.pop("stderr", "")) + self._instance.read_stderr()
        if said:
            self._output("stderr", said.encode())
        was = self._phase
        self._phase = _Phase.GONE
        if was is _Phase.BOOTING and type(error) is GuestFailed:
            error = AppFailedToStart(error.message, details={**error.details, "traceback": said})
        self._broken(error)

    def _broken(self, error: IsopodError) -> None:
        """Whoever waits gets `error`: nothing more will come."""
        self._phase = _Phase.GONE
        self._settle(error=error)
        if self._many is not None:
            self._many.fail(error)

    def _on_call(self, frame: bytes) -> None:
        try:
            self._dispatch(frame[:1], frame)
        except IsopodError as error:
            self._broken(error)

    def _dispatch(self, operation: bytes, frame: bytes) -> None:
        phase = self._phase
        if operation == b"S" and phase is _Phase.HEAD:
            response = frames.parse_response(frame, more=False)
            self._become_idle()
            self._settle(response)
        elif operation == b"H" and phase is _Phase.HEAD:
            response = frames.parse_response(frame, more=True)
            if response.more:
                self._phase = _Phase.BODY
                self._begin_client_wait()
            else:
                self._phase = _Phase.ENDING
                self._instance.reply(b"")
            self._settle(response)
        elif operation == b"D" and phase is _Phase.ENDING:
            self._instance.reply(b"gone")  # more than it declared: nobody takes it
        elif operation == b"E" and phase is _Phase.ENDING:
            self._become_idle()
            self._settle(None)
        elif operation == b"D" and phase is _Phase.BODY:
            self._begin_client_wait()
            self._settle(frame[1:])
        elif operation == b"E" and phase is _Phase.BODY:
            self._become_idle()
            self._settle(None)
        elif operation == b"B" and phase in (_Phase.HEAD, _Phase.BODY, _Phase.ENDING):
            self._start_body_read(frame)
        elif operation == b"W" and phase is _Phase.SERVING and self._many is not None:
            self._many.on_wait(frame)
        elif operation == b"L" and phase is not _Phase.IDLE:
            self._say(frame)
        elif operation in capabilities.OPERATIONS and phase is not _Phase.IDLE:
            if self._capabilities is None:
                self._capabilities = Capabilities(
                    self._world, app=self._app, tenant=self._tenant, answers=self
                )
            self._capabilities.call(frame)
        elif operation == b"X" and phase in (_Phase.HEAD, _Phase.BODY, _Phase.ENDING):
            self._failed(frame)
        elif operation == b"Q" and phase is _Phase.BOOTING:
            self._become_idle()
            self._settle(None)
        elif operation == b"W" and phase is _Phase.BOOTING:
            self._many = Exchanges(self)
            self._phase = _Phase.SERVING
            self._many.on_wait(frame)
            self._settle(None)
        elif operation == b"R" and phase is _Phase.BOOTING:
            raise frames.boot_error(frame[1:])
        elif operation == b"C" and phase is _Phase.BOOTING:
            self._instance.reply(self._config)
        elif operation == b"I" and phase is _Phase.IMAGING:
            self._on_addresses(frame[1:])
            self._instance.reply(b"")
        elif operation == b"R" and phase is _Phase.IMAGING:
            self._report = frames.parse_report(frame[1:])
            self._instance.reply(b"")
        else:
            raise GuestProtocolError(
                f"the guest sent operation {operation!r} while it was {phase.name.lower()}"
            )

    def _say(self, frame: bytes) -> None:
        if len(frame) > _MAX_OUTPUT + 6:
            raise GuestProtocolError(f"the guest sent {len(frame)} bytes of output at once")
        stream, data = frame[1:2], frame[2:]
        if self._many is not None and stream in (b"O", b"E"):
            self._speaker, data = int.from_bytes(data[:4], "little"), data[4:]
        self._output("stdout" if stream in (b"o", b"O") else "stderr", data)
        self._speaker = 0
        self._instance.reply(b"")

    # -- of its many exchanges (see `isopod.runtimes.python.exchanges.GuestSide`) ------------

    def connections(self) -> Connections | None:
        return None if self._capabilities is None else self._capabilities.connections

    def end(self, error: IsopodError) -> None:
        self._broken(error)
        self.close()

    # -- of its capabilities (see `isopod.host.capabilities.Answers`) ------------------------

    def answer(self, data: bytes) -> None:
        if self._instance.state is State.CALLING:
            self._instance.reply(data)
            self._scheduler.wake(self._instance)

    def failed(self, error: IsopodError) -> None:
        self._broken(error)

    def charge(self, cpu_ns: int) -> None:
        self._instance.cpu_ns += cpu_ns

    def _become_idle(self) -> None:
        self._phase = _Phase.IDLE
        self._read_body = None
        if self._body_task is not None:
            self._body_task.cancel()
            self._body_task = None

    def _failed(self, frame: bytes) -> None:
        was_streaming = self._phase is _Phase.BODY
        self._become_idle()
        error = self.app_error(frame[1:])
        error.details["streaming"] = was_streaming
        self._settle(error=error)

    def app_error(self, said: bytes) -> IsopodError:
        """What an app raised: its kind, a line end, a line of summary."""
        kind, _, summary = said.decode("utf-8", "replace").partition("\n")
        if kind == "memory":
            limit = self._instance.spec.memory_bytes >> 20
            return MemoryLimitExceeded(f"the app reached its memory limit of {limit} MiB")
        return GuestFailed(
            "the app raised an error", details={"summary": summary[: frames.MAX_SUMMARY]}
        )

    # -- the request's body -----------------------------------------------------------------

    def _start_body_read(self, frame: bytes) -> None:
        wanted = min(int.from_bytes(frame[1:5], "little"), _MAX_BODY_READ)
        self._begin_client_wait()
        self._body_task = asyncio.get_running_loop().create_task(self._feed_body(wanted))

    async def _feed_body(self, wanted: int) -> None:
        try:
            data = b""
            if wanted and self._read_body is not None:
                data = await self._read_body(wanted)
        except IsopodError as error:
            if isinstance(error, ClientDisconnected):
                self._abandoned = True
            self._settle(error=error)
            return
        except Exception as error:
            # Else the guest would wait for ever: time with its client has no deadline.
            failed = EngineError("the request body could not be read")
            failed.__cause__ = error
            self._settle(error=failed)
            return
        self._end_client_wait()
        if self._instance.state is State.CALLING:
            self._instance.reply(data)
            self._scheduler.wake(self._instance)

    def _begin_client_wait(self) -> None:
        if self._waits_since is None:
            self._waits_since = time.monotonic()

    def _end_client_wait(self) -> None:
        if self._waits_since is not None:
            self._client_wait_s += time.monotonic() - self._waits_since
            self._waits_since = None
