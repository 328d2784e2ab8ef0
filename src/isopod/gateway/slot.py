"""One instance of an app in a worker: its guest, its /tmp, its place in the log."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable

from isopod.errors import GuestFailed, IsopodError
from isopod.gateway.held import HeldMemory
from isopod.gateway.logs import AppLog, LineSplitter
from isopod.gateway.shares import NOTHING, Shares, Totals
from isopod.gateway.steps import Steps
from isopod.gateway.volumes import HeldVolumes
from isopod.metering.meter import Record
from isopod.model.log import Level, Stream
from isopod.model.route import Route
from isopod.model.usage import UsageKind, UsageRecord
from isopod.runtimes.guest import Guest, OutputSink

# How a worker makes a guest for a route: the guest, and what removes its files afterwards.
MakeGuest = Callable[[Route, OutputSink], Awaitable[tuple[Guest, Callable[[], None]]]]


# Requests at once in an instance whose guest can have many, if the app does not say.
CONCURRENCY = 50
# CPython's memory after a plain boot; what a restored instance writes of its image.
_BOOTED_BYTES = 48 << 20
_RESTORED_BYTES = 3 << 20


def expected_bytes(route: Route) -> int:
    """What one more instance is counted as until it runs."""
    has_image = route.snapshot is not None and bool(route.snapshot.image)
    return _RESTORED_BYTES if has_image else _BOOTED_BYTES


class Slot:
    """`request_id` is set while it serves, so that its output can be told by request. `meter` is
    told of its start, and of the memory that it holds when no request does."""

    def __init__(
        self,
        route: Route,
        log: AppLog,
        make: MakeGuest,
        *,
        meter: Record,
        volumes: HeldVolumes,
        runs_command: bool = False,
    ) -> None:
        """`runs_command`: its start is all it does, and what it holds meanwhile is looked at."""
        self._runs_command = runs_command
        self.started_egress_bytes = 0  # sent while it started
        self.id = os.urandom(4).hex()
        self.route = route
        self.request_id = ""
        self.requests = 0
        self.in_flight = 0
        self.draining = False  # takes no more requests, and ends with the last that it has
        self.made_at = time.monotonic()
        self.used_at = self.made_at
        self.boot_s = 0.0
        self.starting = True
        self.said_memory_error = False
        self.closed = False
        self.stopped_by: IsopodError | None = None  # why it was ended while it served
        self.held = HeldMemory(time.monotonic_ns())
        self._shares = Shares()
        self._counted_cpu_ns = 0
        self._began_cpu_ns = 0
        self._meter = meter
        self._log = log
        self._splitters: dict[Stream, LineSplitter] = {}
        self._make = make
        self._guest: Guest | None = None
        self._remove: Callable[[], None] = lambda: None
        self._volumes = volumes
        self._let_go: Callable[[], None] = lambda: None

    @property
    def guest(self) -> Guest:
        """Only after `start`."""
        if self._guest is None:
            raise RuntimeError(f"instance {self.id} has no guest yet")
        return self._guest

    @property
    def capacity(self) -> int:
        """How many requests it may have at once."""
        if self._guest is None or self.route.spec.isolation.mode == "request":
            return 1
        return min(self._guest.capacity, self.route.spec.scaling.concurrency or CONCURRENCY)

    @property
    def has_room(self) -> bool:
        """For one request more, which would not only wait in it."""
        guest = self._guest
        return (
            guest is not None
            and not self.draining
            and self.in_flight < self.capacity
            and guest.idle
            and not guest.blocked
        )

    @property
    def waiting(self) -> bool:
        return self._guest is None or self._guest.waiting

    @property
    def cpu_ns(self) -> int:
        return 0 if self._guest is None else self._guest.cpu_ns

    @property
    def request_cpu_ns(self) -> int:
        """Since its request began, or the first of those that it has."""
        return self.cpu_ns - self._began_cpu_ns

    def uncounted_cpu_ns(self) -> int:
        """CPU since the last call, for its tenant's quota."""
        now = self.cpu_ns
        before, self._counted_cpu_ns = self._counted_cpu_ns, now
        return now - before

    @property
    def private_bytes(self) -> int:
        """See `Guest.private_bytes`; an estimate while it starts."""
        if self.stopped_by is not None:
            return 0
        if self._guest is None or (self.starting and not self._runs_command):
            return expected_bytes(self.route)
        return self._guest.private_bytes

    @property
    def memory_bytes(self) -> int:
        return 0 if self._guest is None else self._guest.memory_bytes

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for its volumes."""
        return self._volumes.wanted(self.route)

    async def claim(self) -> None:
        """Always before `start`: when its volumes are free. Raises what keeps them from it."""
        try:
            self._let_go = await self._volumes.claim(self.route)
        except IsopodError as error:
            self.report(error)
            raise
        if self.closed:
            self._let_go()
            raise GuestFailed("the instance was ended while it waited for its volumes")

    async def start(self) -> None:
        """Boot. Raises what the app or the engine raised; the traceback is in the log."""
        began = time.monotonic()
        steps = Steps(self._boot())
        outcome = "ended"  # by us, until it ends by itself
        try:
            await steps.run()
            outcome = "ok"
        except IsopodError as error:
            outcome = error.code
            self.report(error)
            raise
        finally:
            self.boot_s = time.monotonic() - began
            self.starting = False
            self.used_at = time.monotonic()
            self._record_start(outcome, steps.spent_ns)

    async def _boot(self) -> None:
        self._guest, self._remove = await self._make(self.route, self._output)
        if self.closed:  # ended while its files were made ready
            self._discard()
            raise GuestFailed("the instance was ended while it started")
        await self._guest.start()

    def begin(self, request_id: str) -> None:
        """A request has it; `in_flight` counts it already."""
        self.requests += 1
        if self.in_flight > 1:
            self.request_id = ""  # the guest says whose its output is
            return
        self.request_id = request_id
        self.said_memory_error = False
        self._began_cpu_ns = self.cpu_ns

    def end(self) -> None:
        """Its requests are over: what was printed without a line end is a line too."""
        for stream, splitter in self._splitters.items():
            self._write(stream, splitter.end())
        self.request_id = ""
        self.used_at = time.monotonic()

    def stop(self, error: IsopodError) -> None:
        """End the guest although it serves a request; that gets `error`."""
        if self._guest is not None and self.stopped_by is None:
            self.stopped_by = error
            self._guest.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.look(time.monotonic_ns())
            self._discard()
            # A request that was stopped may have gone on for a while: no other comes to pay for it.
            left = NOTHING if self._shares.requests else self._shares.take(self._totals())
            self.record_live(left)
            self.end()

    # -- what it uses -----------------------------------------------------------------------

    def begin_use(self, now_ns: int) -> Totals:
        """A request uses it from now on; `end_use` wants what this gives."""
        if not self._shares.requests:
            self.held.begin(now_ns)
        else:
            self._look_shared(now_ns)
        return self._shares.begin(self._totals())

    def end_use(self, began: Totals, now_ns: int, *, peak_memory_bytes: int) -> Totals:
        """What the request is billed: its part, and of one that is alone all that was not billed
        before, so that nothing is left between two requests."""
        if self._shares.requests == 1:
            self.held.end(self.guest.private_of(peak_memory_bytes), now_ns)
        else:
            self._look_shared(now_ns)
        return self._shares.end(self._totals(), began)

    def used_cpu_ns(self) -> int:
        """Of which a request's CPU up to now is the difference since it began."""
        if self.capacity == 1:
            return self.cpu_ns
        return self._shares.so_far(self._totals())

    def _look_shared(self, now_ns: int) -> None:
        guest = self.guest
        self.held.look(guest.private_of(guest.peak_memory_bytes), now_ns)

    def _totals(self) -> Totals:
        guest = self._guest
        if guest is None:
            return NOTHING
        return Totals(guest.cpu_ns, guest.host_ns, guest.sent_bytes, self.held.served)

    def look(self, now_ns: int) -> None:
        """Note how much memory it has. Called about every second."""
        if self._guest is not None and (self._runs_command or not self.starting):
            self.held.look(self._guest.private_bytes, now_ns)

    def record_live(self, left: Totals = NOTHING) -> None:
        """Meter the memory that it held outside of requests, up to the last look; and at its end
        what else is `left`."""
        held = self.held.take_idle()
        if held or left.cpu_ns or left.sent_bytes:
            self._record(
                "live",
                memory_byte_ms=held,
                cpu_ns=left.cpu_ns,
                host_ns=left.host_ns,
                bytes_out=left.sent_bytes,
            )

    def _record_start(self, outcome: str, host_ns: int) -> None:
        took = self._shares.take(self._totals())
        self.started_egress_bytes = took.sent_bytes
        self._record(
            "start",
            bytes_out=self.started_egress_bytes,
            outcome=outcome,
            cpu_ns=took.cpu_ns,
            host_ns=host_ns + took.host_ns,
            wall_ns=int(self.boot_s * 1e9),
        )
        self.look(time.monotonic_ns())

    def _record(
        self,
        kind: UsageKind,
        *,
        outcome: str = "ok",
        cpu_ns: int = 0,
        host_ns: int = 0,
        wall_ns: int = 0,
        memory_byte_ms: int = 0,
        bytes_out: int = 0,
    ) -> None:
        guest, route = self._guest, self.route
        self._meter(
            UsageRecord(
                kind=kind,
                at=time.time(),
                tenant=route.tenant,
                app=route.name,
                version=route.version,
                instance=self.id,
                outcome=outcome,
                cpu_ns=cpu_ns,
                host_ns=host_ns,
                wall_ns=wall_ns,
                peak_memory_bytes=0 if guest is None else guest.peak_memory_bytes,
                memory_byte_ms=memory_byte_ms,
                bytes_out=bytes_out,
            )
        )

    # ---------------------------------------------------------------------------------------

    def _discard(self) -> None:
        if self._guest is not None:
            self._guest.close()
        with contextlib.suppress(OSError):
            self._remove()
        self._let_go()

    def say(self, message: str, level: Level = "info", *, request_id: str = "") -> None:
        """A line of ours in the app's log."""
        self._write("isopod", [message], level, request_id=request_id)

    def report(self, error: IsopodError, request_id: str = "") -> None:
        """An error in the app's log, with everything that a stranger is not told."""
        hint = f" ({error.hint})" if error.hint else ""
        self.say(f"{error.code}: {error.message}{hint}", "error", request_id=request_id)
        for key in ("traceback", "trap", "summary"):
            text = str(error.details.get(key) or "")
            stream: Stream = "stderr" if key == "traceback" else "isopod"
            self._write(stream, text.splitlines(), "error", request_id=request_id)

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self.used_at

    def _output(self, stream: Stream, data: bytes) -> None:
        if b"MemoryError" in data:
            self.said_memory_error = True
        splitter = self._splitters.get(stream)
        if splitter is None:
            splitter = self._splitters[stream] = LineSplitter()
        if stream != "isopod" and self._log.full:
            self._log.drop(splitter.skip(data), len(data))
            return
        speaker = "" if self._guest is None else self._guest.speaker
        self._write(stream, splitter.feed(data), request_id=speaker)

    def _write(
        self,
        stream: Stream,
        messages: list[str],
        level: Level = "warning",
        *,
        request_id: str = "",
    ) -> None:
        """`level`: of ours; who starts instances tells only what he had to do without."""
        self._log.write_lines(
            stream,
            messages,
            version=self.route.version,
            instance=self.id,
            request_id=request_id or self.request_id,
            level=level,
        )
