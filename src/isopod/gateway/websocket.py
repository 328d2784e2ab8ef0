"""One WebSocket between its client and an instance: from the upgrade to the last message.

A WebSocket occupies a place in an instance like a request, for as long as it is open. That of an
app that hibernates goes on without: when its instance has nothing to do it may end, the client
notices nothing, and the next message brings a new one (docs/websockets.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from isopod.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    GuestFailed,
    IsopodError,
    NodeBusy,
    NodeDraining,
    WebSocketUnsupported,
)
from isopod.gateway.admission import Admission
from isopod.gateway.app_pool import AppPool
from isopod.gateway.body import Receive, Send
from isopod.gateway.fleet import Fleet
from isopod.gateway.slot import Slot
from isopod.gateway.steps import Steps
from isopod.gateway.usage import RequestUse
from isopod.metering.meter import Record
from isopod.model.route import Route
from isopod.runtimes.guest import (
    GuestRequest,
    GuestResponse,
    SocketAccepted,
    SocketClosed,
    SocketExchange,
    SocketMessage,
)

_SWITCHING = 101
# An app has so long to end what it does for a client that has gone.
LAST_S = 10.0
# RFC 6455 7.4.1 and IANA's registry of close codes.
FAILED, RESTARTS, TRY_LATER = 1011, 1012, 1013
_LATER = frozenset(
    {"overloaded", "node_busy", "quota_exceeded", "rate_limited", "worker_unavailable"}
)


def close_code(error: IsopodError) -> int:
    """For a client whose WebSocket was open when this went wrong."""
    if error.code == "node_draining":
        return RESTARTS
    if error.code in _LATER:
        return TRY_LATER
    if error.code == "worker_gone":
        return RESTARTS
    return FAILED


class WebSocket:
    """`find` gives the route that is live now, None when there is none any more; `elsewhere` says
    whether another worker must answer for it."""

    def __init__(
        self,
        request: GuestRequest,
        receive: Receive,
        send: Send,
        *,
        route: Route,
        find: Callable[[], Route | None],
        elsewhere: Callable[[Route], bool],
        fleet: Fleet,
        admission: Admission,
        meter: Record,
        client_host_ns: Callable[[], int],
    ) -> None:
        """`client_host_ns`: what the client's frames took so far."""
        self.route = route
        self.find = find
        self._elsewhere = elsewhere
        self.slot: Slot | None = None  # while it is awake
        self.pool: AppPool | None = None
        self._request = request
        self._receive, self._send = receive, send
        self._fleet, self._admission, self._meter = fleet, admission, meter
        self._loop = asyncio.get_running_loop()
        self.moved_at = self._loop.time()
        self._accepted = False
        self._handshake: asyncio.Future[None] | None = None  # the app's first message waits for it
        self._resumes = False  # it was awake before
        self._attachment = b""
        self._exchange: SocketExchange | None = None
        self._reads = False  # the app waits for a message, and has everything that came before
        self._pending: SocketMessage | None = None
        self._retires = False
        self._stopped_by: IsopodError | None = None
        self._sleeper: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._use: RequestUse | None = None
        self._bytes_in = self._bytes_out = 0
        self._total_out = 0
        self._client_host_ns = client_host_ns
        self._steps = Steps(self._run())
        self._recorded_host_ns = 0

    @property
    def rests_s(self) -> float | None:
        """How long nothing has moved; None while the app has something to do, or could not be
        told later what it is not told now."""
        if not (self.route.spec.hibernate and self._accepted and self._reads):
            return None
        return self._loop.time() - self.moved_at

    @property
    def accepted(self) -> bool:
        return self._accepted

    async def run(self) -> None:
        """Until it is closed; once. Raises IsopodError: the caller tells the client."""
        await self._steps.run()

    async def _run(self) -> None:
        if (await self._receive())["type"] != "websocket.connect":
            return
        while await self._awake():
            self._pending = await self._asleep()
            if isinstance(self._pending, SocketClosed):
                return  # nothing runs for it: the app is not told
            self._resumes = True
            route = self.find()
            if route is None or route.tenant != self.route.tenant:
                raise GuestFailed("the app is gone")
            if self._elsewhere(route):
                raise NodeDraining("the app is answered by another worker by now")
            self.route = route

    def retire(self) -> None:
        """The instance is about to be ended: go on without, from now on."""
        self._retires = True

    def stop(self, error: IsopodError) -> None:
        """End it. The client is told why, and the app that it is over, if it listens."""
        if self._stopped_by is not None:
            return
        self._stopped_by = error
        if self._sleeper is not None:
            self._sleeper.cancel()
        elif self._exchange is not None and self._accepted:
            self._closing = self._loop.create_task(self._close(self._exchange, error))

    def cut_record(self) -> None:
        """Meter what was used so far: a WebSocket may be open for days."""
        slot, use = self.slot, self._use
        if slot is None or use is None or slot.closed:
            return
        self._record(use, "ok")
        self._use = RequestUse(slot, cold=False)
        sent, self._total_out = self._total_out, 0
        try:
            self._admission.count(self.route, egress_bytes=sent)
        except IsopodError as error:
            self.stop(error)

    async def _close(self, exchange: SocketExchange, error: IsopodError) -> None:
        with contextlib.suppress(IsopodError):
            await self._send({"type": "websocket.close", "code": close_code(error), "reason": ""})
        await asyncio.sleep(LAST_S)
        exchange.stop()

    async def _asleep(self) -> SocketMessage:
        """Without an instance, until a message comes."""
        if self._stopped_by is not None:
            raise self._stopped_by
        self._sleeper = asyncio.current_task()
        try:
            return await self._next()
        except asyncio.CancelledError:
            if self._stopped_by is None or self._sleeper is None:
                raise
            self._sleeper.uncancel()
            raise self._stopped_by from None
        finally:
            self._sleeper = None

    # -- awake ------------------------------------------------------------------------------

    async def _awake(self) -> bool:
        """With an instance. Whether the WebSocket goes on without."""
        route = self.route
        self._admission.enter(route)
        cpu_ns = 0
        try:
            pool = self._fleet.pool(route)
            acquired = await pool.acquire(self._request.request_id)
            slot, healthy = acquired.slot, False
            self._use = RequestUse(slot, cold=acquired.start_ms > 0)
            self.slot, self.pool, self._retires = slot, pool, False
            outcome = "ended"
            try:
                await self._with_instance(slot)
                healthy, outcome = True, "ok"
                return False
            except IsopodError as error:
                if self._goes_on(slot):
                    outcome = "ok"
                    return True
                error = self._stopped_by or slot.stopped_by or error
                healthy, outcome = slot.guest.idle, error.code
                if not isinstance(error, ClientDisconnected) and error is not self._stopped_by:
                    pool.errors += 1
                    slot.report(error, self._request.request_id)
                raise error from None
            except asyncio.CancelledError:  # its client is gone, and the app does not mind
                healthy = slot.guest.idle
                raise
            finally:
                self.slot = self.pool = None
                self._reads = False
                if self._use is not None:
                    self._record(self._use, outcome)
                    self._use = None
                cpu_ns = slot.uncounted_cpu_ns()
                pool.release(slot, reusable=healthy)
        finally:
            sent, self._total_out = self._total_out, 0
            self._admission.leave(route, cpu_ns=cpu_ns, egress_bytes=sent)

    def _goes_on(self, slot: Slot) -> bool:
        """Its instance was ended; by us, and for want of something to do."""
        return self._retires or (
            isinstance(slot.stopped_by, NodeBusy)
            and self._stopped_by is None
            and self.rests_s is not None
        )

    async def _with_instance(self, slot: Slot) -> None:
        if self._stopped_by is not None:
            raise self._stopped_by
        exchange = self._exchange = slot.guest.socket()
        if exchange is None:
            raise WebSocketUnsupported("this app takes no WebSockets")
        try:
            opened = await self._open(exchange)
            if self._stopped_by is not None:  # meanwhile: nobody says it again
                raise self._stopped_by
            if isinstance(opened, GuestResponse):
                await self._refuse(opened)
            else:
                await self._accept(opened)
                await self._relay(exchange)
            await self._end(exchange)
        finally:
            if exchange.attachment is not None:  # b"" takes away what was there
                self._attachment = exchange.attachment
            self._exchange = None
            if self._closing is not None:
                self._closing.cancel()
            if not exchange.ended:
                exchange.stop()

    async def _open(self, exchange: SocketExchange) -> SocketAccepted | GuestResponse:
        request = self._request
        if self._resumes:
            request = replace(request, attachment=self._attachment)
        deadline_ms = self.route.spec.limits.deadline_ms
        try:
            async with asyncio.timeout(deadline_ms / 1e3):
                return await exchange.open(request, self._read)
        except TimeoutError:
            raise DeadlineExceeded(
                f"app {self.route.name!r} did not take or refuse a WebSocket within its deadline "
                f"of {deadline_ms} ms"
            ) from None

    async def _refuse(self, response: GuestResponse) -> None:
        if self._accepted:  # it was taken before
            raise GuestFailed("the app refused a WebSocket that it had taken")
        start = {"type": "websocket.http.response.start", "status": response.status}
        await self._send({**start, "headers": response.headers})
        await self._send({"type": "websocket.http.response.body", "body": response.body})

    async def _accept(self, opened: SocketAccepted) -> None:
        if self._accepted:
            return
        message: dict[str, Any] = {"type": "websocket.accept", "headers": list(opened.headers)}
        if opened.subprotocol:
            message["subprotocol"] = opened.subprotocol
        await self._send(message)
        self._accepted = True
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_result(None)

    async def _relay(self, exchange: SocketExchange) -> None:
        while True:
            message = await exchange.next_message()
            self.moved_at = self._loop.time()
            if isinstance(message, SocketClosed):
                await self._send(
                    {"type": "websocket.close", "code": message.code, "reason": message.reason}
                )
                return
            self._bytes_out += len(message)
            if isinstance(message, str):
                await self._send({"type": "websocket.send", "text": message})
            else:
                await self._send({"type": "websocket.send", "bytes": message})

    async def _end(self, exchange: SocketExchange) -> None:
        try:
            async with asyncio.timeout(LAST_S):
                await exchange.finish()
        except TimeoutError:
            raise DeadlineExceeded(
                f"app {self.route.name!r} went on for {LAST_S:.0f} s after its WebSocket was over"
            ) from None

    # -- what the client says ---------------------------------------------------------------

    async def _read(self) -> SocketMessage:
        """For the app. Only while nothing has come yet may it be put off."""
        if self._pending is not None:
            message, self._pending = self._pending, None
            return message
        if not self._accepted:  # it asks as soon as it has said that it takes it
            self._handshake = self._loop.create_future()
            await self._handshake
        self._reads = True
        message = await self._next()
        # Not when it is cancelled: that it only waited is what lets it go on without its instance.
        self._reads = False
        return message

    async def _next(self) -> SocketMessage:
        message: Mapping[str, Any] = await self._receive()
        self.moved_at = self._loop.time()
        if message["type"] != "websocket.receive":
            return SocketClosed(int(message.get("code", 1005)), message.get("reason") or "")
        text = message.get("text")
        data: str | bytes = message["bytes"] if text is None else text
        self._bytes_in += len(data)
        return data

    # -- what it used -----------------------------------------------------------------------

    def _record(self, use: RequestUse, outcome: str) -> None:
        use.end()
        bytes_in, bytes_out = self._bytes_in, self._bytes_out
        self._bytes_in = self._bytes_out = 0
        self._total_out += bytes_out + use.egress_bytes
        before, now = self._recorded_host_ns, self._steps.spent_ns + self._client_host_ns()
        self._recorded_host_ns = now
        self._meter(
            use.record(
                request_id=self._request.request_id,
                outcome=outcome,
                status=_SWITCHING,
                host_ns=now - before,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
            )
        )
