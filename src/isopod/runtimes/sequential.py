"""A guest that answers one request at a time, over one host call.

It is parked in a call that says how it ended its last request; the answer is the next one. Every
frame arrives in `_on_call`, on the loop, after the guest was suspended. What a guest may say
depends on where it is (`Phase`); anything else ends it with GuestProtocolError. The frames are
those that Python's guest describes (`python/guest/isopod_frames.py`); a runtime adds what its own
guests say.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from typing import Any, ClassVar

from isopod.engine.instance import Arguments, Instance, State
from isopod.engine.scheduler import Scheduler
from isopod.errors import (
    AppFailedToStart,
    ClientDisconnected,
    GuestFailed,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
)
from isopod.runtimes import frames
from isopod.runtimes.client_wait import ClientWait, reading
from isopod.runtimes.guest import (
    BodyReader,
    GuestRequest,
    GuestResponse,
    InstanceGuest,
    OutputSink,
)

# The guest sends output in such pieces; each is split into lines on the loop.
MAX_OUTPUT = 32 << 10


class Phase(enum.Enum):
    BOOTING = enum.auto()
    IDLE = enum.auto()
    HEAD = enum.auto()  # has a request, has not answered
    BODY = enum.auto()  # is sending a response in pieces
    SERVING = enum.auto()  # has any number of exchanges, on an event loop of its own
    ENDING = enum.auto()  # has sent a whole response and works on, for its own sake
    IMAGING = enum.auto()  # takes no more requests; its memory is about to become an image
    GONE = enum.auto()


_ANSWERING = (Phase.HEAD, Phase.BODY, Phase.ENDING)


class SequentialGuest(InstanceGuest):
    """See `isopod.runtimes.guest.Guest` and `Exchange`: it is its own."""

    max_body_read: ClassVar[int] = 256 << 10

    def __init__(
        self, instance: Instance, scheduler: Scheduler, output: OutputSink, config: bytes
    ) -> None:
        """`config`: what a restored guest asks for (its settings, its hook)."""
        super().__init__(instance)
        self._scheduler = scheduler
        self._output = output
        self._config = config
        self._phase = Phase.BOOTING
        self._read_body: BodyReader | None = None
        self._body_task: asyncio.Task[None] | None = None
        self._report: dict[str, Any] = {}
        self._abandoned = False
        self._client_wait = ClientWait()
        instance.on_call = self._on_call
        instance.on_exit = self._on_exit

    @property
    def idle(self) -> bool:
        return self._phase is Phase.IDLE

    @property
    def ended(self) -> bool:
        """As its own exchange."""
        return self._phase is Phase.IDLE

    def stop(self) -> None:
        self.close()

    @property
    def waiting(self) -> bool:
        return self._instance.state in (State.CALLING, State.SLEEPING)

    @property
    def client_wait_s(self) -> float:
        return self._client_wait.seconds

    async def start(self) -> None:
        await self._step()

    async def send(self, request: GuestRequest, read_body: BodyReader) -> GuestResponse:
        if self._phase is Phase.GONE:
            # By what it did when its last response was whole and nobody listened any more.
            raise GuestFailed("the guest was ended")
        if self._phase is not Phase.IDLE:
            raise RuntimeError(f"a guest in phase {self._phase.name} takes no request")
        frame = frames.request_frame(request)
        self._phase = Phase.HEAD
        self._read_body = read_body
        self._abandoned = False
        self._client_wait.forget()
        self._instance.reply(frame)
        response: GuestResponse = await self._step()
        return response

    async def next_chunk(self) -> bytes | None:
        if self._phase is Phase.GONE:
            # Not the end of the response: the client must not take a part for the whole.
            raise GuestFailed("the guest was ended")
        if self._phase is not Phase.BODY:
            return None
        self._client_wait.end()
        self._instance.reply(b"gone" if self._abandoned else b"")
        chunk: bytes | None = await self._step()
        return chunk

    async def finish(self) -> None:
        if self._phase is Phase.ENDING:
            await self._step()

    async def image(self, calls: Sequence[tuple[str, Arguments]]) -> dict[str, Any]:
        """End the requests and make `calls`, after which the memory can be captured. Gives the
        guest's report."""
        if not self.idle:
            raise RuntimeError(f"a guest in phase {self._phase.name} makes no image")
        self._phase = Phase.IMAGING
        self._instance.then(calls)
        self._end_requests()
        await self._step()
        return self._report

    def _end_requests(self) -> None:
        self._instance.reply(b"")

    def abandon(self) -> None:
        self._abandoned = True

    def close(self) -> None:
        self._phase = Phase.GONE
        self._instance.close()
        if self._body_task is not None:
            self._body_task.cancel()
        self._broken(GuestFailed("the guest was ended"))

    # -- between the loop and the guest -----------------------------------------------------

    async def _step(self) -> Any:
        """Run the guest until it has something for us."""
        if self._phase is Phase.GONE:
            raise GuestFailed("the guest was ended")
        stepped = self._wait()
        self._scheduler.wake(self._instance)
        return await stepped

    def _on_exit(self, error: IsopodError | None) -> None:
        if error is None and self._phase is Phase.IMAGING:
            self._settle(None)
            return
        if error is None:
            # Its interpreter gave up: without memory there is no frame to say so in.
            error = self._instance.explain(GuestFailed("the guest ended instead of answering"))
        said = str(error.details.pop("stderr", "")) + self._instance.read_stderr()
        if said:
            self._output("stderr", said.encode())
        was = self._phase
        self._phase = Phase.GONE
        if was is Phase.BOOTING and type(error) is GuestFailed:
            error = AppFailedToStart(error.message, details={**error.details, "traceback": said})
        self._broken(error)

    def _broken(self, error: IsopodError) -> None:
        """Whoever waits gets `error`: nothing more will come."""
        self._phase = Phase.GONE
        self._settle(error=error)

    def _on_call(self, frame: bytes) -> None:
        try:
            self._dispatch(frame[:1], frame)
        except IsopodError as error:
            self._broken(error)

    def _dispatch(self, operation: bytes, frame: bytes) -> None:
        phase = self._phase
        if operation in (b"S", b"H") and phase is Phase.HEAD:
            self._answered(frames.parse_response(frame, more=operation == b"H"), operation)
        elif operation == b"D" and phase is Phase.BODY:
            self._client_wait.begin()
            self._settle(frame[1:])
        elif operation == b"D" and phase is Phase.ENDING:
            self._instance.reply(b"gone")  # more than it declared: nobody takes it
        elif operation == b"E" and phase in (Phase.BODY, Phase.ENDING):
            self._become_idle()
            self._settle(None)
        elif operation == b"B" and phase in _ANSWERING:
            self._start_body_read(frame)
        elif operation == b"X" and phase in _ANSWERING:
            self._failed(frame)
        elif operation == b"L" and phase is not Phase.IDLE:
            self._say(frame)
        elif operation == b"Q" and phase is Phase.BOOTING:
            self._become_idle()
            self._settle(None)
        elif operation == b"R" and phase is Phase.BOOTING:
            raise frames.boot_error(frame[1:])
        elif operation == b"C" and phase is Phase.BOOTING:
            self._instance.reply(self._config)
        elif operation == b"R" and phase is Phase.IMAGING:
            self._report = frames.parse_report(frame[1:])
            self._instance.reply(b"")
        elif not self._take_own(operation, frame):
            raise GuestProtocolError(
                f"the guest sent operation {operation!r} while it was {phase.name.lower()}"
            )

    def _take_own(self, operation: bytes, frame: bytes) -> bool:  # noqa: ARG002  for others
        """What guests of this runtime say beside; whether it may be said now."""
        return False

    def _answered(self, response: GuestResponse, operation: bytes) -> None:
        if response.more:
            self._phase = Phase.BODY
            self._client_wait.begin()
        elif operation == b"H":
            self._phase = Phase.ENDING
            self._instance.reply(b"")
        else:
            self._become_idle()
        self._settle(response)

    def _say(self, frame: bytes) -> None:
        if len(frame) > MAX_OUTPUT + 2:
            raise GuestProtocolError(f"the guest sent {len(frame)} bytes of output at once")
        self._output("stdout" if frame[1:2] == b"o" else "stderr", frame[2:])
        self._instance.reply(b"")

    def _become_idle(self) -> None:
        self._phase = Phase.IDLE
        self._read_body = None
        if self._body_task is not None:
            self._body_task.cancel()
            self._body_task = None

    def _failed(self, frame: bytes) -> None:
        was_streaming = self._phase is Phase.BODY
        self._become_idle()
        error = self.app_error(frame[1:])
        error.details["streaming"] = was_streaming
        self._settle(error=error)

    def app_error(self, said: bytes) -> IsopodError:
        """What an app raised: its kind, a line end, a line of summary."""
        kind, _, summary = said.decode("utf-8", "replace").partition("\n")
        if kind == "memory":
            limit = self._instance.spec.limit_mib
            return MemoryLimitExceeded(f"the app reached its memory limit of {limit} MiB")
        return GuestFailed(
            "the app raised an error", details={"summary": summary[: frames.MAX_SUMMARY]}
        )

    # -- the request's body -----------------------------------------------------------------

    def _start_body_read(self, frame: bytes) -> None:
        wanted = min(int.from_bytes(frame[1:5], "little"), self.max_body_read)
        self._client_wait.begin()
        self._body_task = asyncio.get_running_loop().create_task(self._feed_body(wanted))

    async def _feed_body(self, wanted: int) -> None:
        try:
            data = b""
            if wanted and self._read_body is not None:
                with reading("the request body"):
                    data = await self._read_body(wanted)
        except IsopodError as error:
            if isinstance(error, ClientDisconnected):
                self._abandoned = True
            self._settle(error=error)
            return
        self._client_wait.end()
        if self._instance.state is State.CALLING:
            self._instance.reply(data)
            self._scheduler.wake(self._instance)
