"""A worker's WebSockets: takes upgrades in, bounds them, and lets instances go that only wait for
the next message.

ASGI's entry of the worker: what is no WebSocket goes on to the `Gateway`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from isopod.errors import (
    AppUnknown,
    BadRequest,
    ClientDisconnected,
    DeadlineExceeded,
    IsopodError,
    NodeDraining,
    Overloaded,
    WebSocketUnsupported,
)
from isopod.gateway.admission import Admission
from isopod.gateway.app import Gateway, Scope
from isopod.gateway.body import Receive, Send
from isopod.gateway.client_socket import ClientSocket
from isopod.gateway.direct import DirectApps
from isopod.gateway.fleet import Fleet
from isopod.gateway.forward import FORWARDED, Forwarder, ResponseCut
from isopod.gateway.headers import Incoming
from isopod.gateway.lines import Peer
from isopod.gateway.pages import error_page
from isopod.gateway.room import may_take
from isopod.gateway.rounds import go_round
from isopod.gateway.slot import Slot
from isopod.gateway.websocket import LAST_S, RESTARTS, WebSocket, close_code
from isopod.gateway.wires import Wires
from isopod.metering.meter import Record
from isopod.model.route import Route

_log = logging.getLogger(__name__)
# From a client; the app may send larger ones.
MAX_MESSAGE_BYTES = 1 << 20
# Without a message either way. An app that hibernates has no instance then, and the client's
# answers to our pings are enough.
MAX_IDLE_S = 3600.0
_FOR_EVER = float("inf")
_EVERY_S = 0.25
_ASLEEP_EVERY_S = 2.0  # whether their apps are still there: they may be thousands
RECORD_EVERY_S = 60.0


def may_hibernate(rests_s: list[float | None], in_flight: int, keep_s: float) -> bool:
    """Whether an instance with `in_flight` requests, of which WebSockets have rested so long, has
    nothing to do but wait."""
    if len(rests_s) != in_flight:
        return False  # a request, or a WebSocket that is just beginning
    return all(rested is not None and rested >= keep_s for rested in rests_s)


class WebSockets:
    def __init__(
        self,
        *,
        gateway: Gateway,
        fleet: Fleet,
        direct: DirectApps,
        admission: Admission,
        wires: Wires,
        elsewhere: Callable[[Route], Peer | None],
        forwarder: Forwarder,
        meter: Record,
        most: int,
    ) -> None:
        """`most`: at once, in this worker."""
        self.hibernated = 0  # times that one went on without its instance
        self._gateway = gateway
        self._fleet, self._direct, self._admission = fleet, direct, admission
        self._wires = wires
        self._elsewhere, self._forwarder = elsewhere, forwarder
        self._meter = meter
        self._most = most
        self._of_tenant: Counter[str] = Counter()
        self._open: set[WebSocket] = set()
        self._clients: dict[ClientSocket, asyncio.Task[Any] | None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._computes_since: dict[Slot, float] = {}
        self._looked_at = 0.0
        self._recorded_at = asyncio.get_running_loop().time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._gateway(scope, receive, send)
            return
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._serve(scope, receive, send)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def status(self) -> dict[str, int]:
        awake = sum(one.slot is not None for one in self._open)
        return {"open": len(self), "awake": awake, "hibernated": self.hibernated}

    async def run(self) -> None:
        """Until it is cancelled."""
        failed = "WebSockets could not be looked at"
        await go_round(self.look, every_s=lambda: _EVERY_S, failed=failed)

    def look(self) -> None:
        """End instances that only wait, and WebSockets whose app is another by now."""
        now = asyncio.get_running_loop().time()
        if look_at_asleep := now - self._looked_at >= _ASLEEP_EVERY_S:
            self._looked_at = now
        of_slot: defaultdict[Slot, list[WebSocket]] = defaultdict(list)
        for one in list(self._open):
            if one.slot is not None:
                of_slot[one.slot].append(one)
            elif look_at_asleep and one.find() is None:
                one.stop(AppUnknown("the app is gone"))
        if look_at_asleep:
            self._end_deserted(now)
        self._end_stuck(of_slot)
        for slot, sockets in of_slot.items():
            retired = any(one.pool is not None and one.pool.retired for one in sockets)
            leaves = retired or slot.wanted
            keep_s = 0.0 if leaves else slot.route.spec.scaling.idle_s
            if may_hibernate([one.rests_s for one in sockets], slot.in_flight, keep_s):
                self.hibernated += len(sockets)
                for one in sockets:
                    one.retire()
                slot.guest.close()
            elif leaves:
                why = "another version of the app is live" if retired else "its volumes are wanted"
                for one in sockets:
                    one.stop(NodeDraining(why))
        self._record_some()

    def _end_deserted(self, now: float) -> None:
        """Whose client has gone long ago, and whose app goes on: it may never ask. (The one that is
        of another worker's client loses its link.)"""
        for client, task in self._clients.items():
            wire = client.wire
            gone_s = now - wire.gone_at if wire is not None and wire.gone_at else 0.0
            if gone_s >= LAST_S and not client.deserted and task is not None:
                client.deserted = True
                task.cancel()

    def _end_stuck(self, of_slot: Mapping[Slot, list[WebSocket]]) -> None:
        """Instances that have computed for longer than a request may, and said nothing. (Where
        there are requests too, their deadlines see to it.)"""
        now = asyncio.get_running_loop().time()
        before, self._computes_since = self._computes_since, {}
        for slot, sockets in of_slot.items():
            if slot.guest.waiting:
                continue
            since = self._computes_since[slot] = max(
                before.get(slot, now), *(one.moved_at for one in sockets)
            )
            limit_ms = slot.route.spec.limits.deadline_ms
            if now - since >= limit_ms / 1e3:
                slot.stop(
                    DeadlineExceeded(
                        f"app {slot.route.name!r} computed past its deadline of {limit_ms} ms "
                        "with a WebSocket's message"
                    )
                )

    def close(self) -> None:
        """The worker stops: every client is told to come again, also those of another worker's."""
        for one in list(self._open):
            one.stop(NodeDraining("this worker is shutting down"))
        for client in self._clients:
            if client.wire is not None:
                client.wire.close(RESTARTS)

    # ---------------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = _Door(send)
        client: ClientSocket | None = None
        request_id = accept = ""
        try:
            incoming = self._gateway.read(scope)
            request_id, accept = incoming.request_id, incoming.accept
            if self._gateway.draining:
                raise NodeDraining("this worker is shutting down")
            if incoming.has_body or not str(scope.get("http_version", "")).startswith("1.1"):
                # RFC 6455 4.1, which the HTTP server does not ask for: a body would be frames.
                raise BadRequest("a WebSocket begins with a request of HTTP/1.1 without a body")
            route = self._gateway.route_at(incoming.host)
            if FORWARDED not in scope:
                client = self._client(scope, receive, send, route)
                self._clients[client] = asyncio.current_task()
                receive, door = client.receive, _Door(client.send)
            await self._begin(scope, receive, door.send, incoming, client)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            if client is None or not client.deserted:
                raise
        except IsopodError as error:
            with contextlib.suppress(ClientDisconnected):
                await door.fail(error, request_id=request_id, accept=accept)
        except ResponseCut:
            pass  # another worker that had it ended; the client sees its connection end
        except Exception:
            _log.exception("WebSocket %s failed inside the gateway", request_id)
            failed = IsopodError("the gateway failed")
            with contextlib.suppress(ClientDisconnected):
                await door.fail(failed, request_id=request_id, accept=accept)
        finally:
            if client is not None:
                try:
                    await client.end()
                finally:
                    self._clients.pop(client, None)

    def _client(self, scope: Scope, receive: Receive, send: Send, route: Route) -> ClientSocket:
        return ClientSocket(
            scope,
            receive,
            send,
            wires=self._wires,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_idle_s=_FOR_EVER if route.spec.hibernate else MAX_IDLE_S,
            tenant=route.tenant,
        )

    async def _begin(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        incoming: Incoming,
        client: ClientSocket | None,
    ) -> None:
        if not await self._forwarder.forward(
            lambda: self._elsewhere(self._gateway.route_at(incoming.host)),
            scope,
            receive,
            send,
            tenant=self._gateway.route_at(incoming.host).tenant,
            request_id=incoming.request_id,
        ):
            route = self._gateway.route_at(incoming.host)
            await self._here(scope, receive, send, incoming, route, client)

    async def _here(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        incoming: Incoming,
        route: Route,
        client: ClientSocket | None,
    ) -> None:
        if self._direct.of(route) is not None:
            raise WebSocketUnsupported(f"app {route.name!r} is a static site")
        tenant = route.tenant
        if not may_take(self._of_tenant[tenant], self._of_tenant.total(), self._most):
            raise Overloaded(f"tenant {tenant!r} has {self._of_tenant[tenant]:,} WebSockets open")
        one = WebSocket(
            self._gateway.guest_request(scope, incoming),
            receive,
            send,
            route=route,
            find=lambda: self._gateway.find_route(route.name),
            elsewhere=lambda live: self._elsewhere(live) is not None,
            fleet=self._fleet,
            admission=self._admission,
            meter=self._meter,
            # That of another worker's client is parsed there, and no part of this app's bill.
            client_host_ns=lambda: client.wire.host_ns if client and client.wire else 0,
        )
        self._of_tenant[tenant] += 1
        self._open.add(one)
        self._fleet.sockets[route.name] += 1
        try:
            await one.run()
        finally:
            self._fleet.sockets[route.name] -= 1
            if not self._fleet.sockets[route.name]:
                del self._fleet.sockets[route.name]
            self._open.discard(one)
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]

    def _record_some(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._recorded_at >= RECORD_EVERY_S:
            self._recorded_at = now
            for one in self._open:
                one.cut_record()


class _Door:
    """What the client has been told so far, so that it is told an error once."""

    def __init__(self, send: Send) -> None:
        self.accepted = self.refused = False
        self._send = send

    async def send(self, message: Any) -> None:
        kind = message["type"]
        self.accepted = self.accepted or kind == "websocket.accept"
        self.refused = self.refused or kind == "websocket.http.response.start"
        await self._send(message)

    async def fail(self, error: IsopodError, *, request_id: str, accept: str) -> None:
        if self.accepted:
            await self._send({"type": "websocket.close", "code": close_code(error), "reason": ""})
        elif not self.refused:
            request_id = request_id or os.urandom(8).hex()
            status, headers, body = error_page(error, request_id=request_id, accept=accept)
            headers.append((b"x-request-id", request_id.encode()))
            start = {"type": "websocket.http.response.start", "status": status}
            await self._send({**start, "headers": headers})
            await self._send({"type": "websocket.http.response.body", "body": body})
