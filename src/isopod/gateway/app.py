"""The gateway's ASGI entry: router, pool, invocation, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from isopod.errors import (
    AppUnknown,
    BadRequest,
    BodyTooLarge,
    ClientDisconnected,
    IsopodError,
    MemoryLimitExceeded,
    NodeDraining,
    VolumeNotFound,
    WorkerUnavailable,
)
from isopod.gateway.admission import Admission
from isopod.gateway.body import RequestBody
from isopod.gateway.direct import DirectApps, DirectUse
from isopod.gateway.fleet import Fleet
from isopod.gateway.forward import FORWARDED, Forwarder, Receive, ResponseCut, Send
from isopod.gateway.headers import Incoming, port_of, read_incoming
from isopod.gateway.invoke import Invocation
from isopod.gateway.job_request import JOB_SCOPE, JobScope
from isopod.gateway.lines import Peer
from isopod.gateway.pages import error_page
from isopod.gateway.router import app_name_of, hostname_of, route_of
from isopod.gateway.slot import Slot
from isopod.gateway.steps import Steps
from isopod.gateway.timing import Timing, no_guest
from isopod.gateway.usage import RequestUse, head_bytes
from isopod.metering.meter import Record
from isopod.model.route import Route
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.guest import GuestRequest

_log = logging.getLogger(__name__)
_MIB = 1 << 20
_MAX_NAMES, _LONGEST_HOST = 4096, 255
_ROUTES_S = 0.5  # after so long this worker has seen what was published before
_STATUS_LINE = len("HTTP/1.1 200 OK")
_REQUEST_LINE = len(" ? HTTP/1.1")  # beside the method, the path and the query
# Of a WebSocket, as headers tell it: a handshake is an HTTP request.
_SCHEMES = {"ws": "http", "wss": "https"}

_NOT_ASCII = re.compile(rb"[\x80-\xff]")

Scope = dict[str, Any]
FindRoute = Callable[[str], Route | None]


class Gateway:
    """`find_route` is the worker's route table; `in_flight` is what a drain waits for. `elsewhere`
    names the other worker that must answer for a route, None when this one may."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        direct: DirectApps,
        admission: Admission,
        find_route: FindRoute,
        elsewhere: Callable[[Route], Peer | None],
        forwarder: Forwarder,
        domain: str,
        trusted_proxies: Iterable[str],
        meter: Record,
    ) -> None:
        self.in_flight = 0
        self.draining = False
        self._fleet = fleet
        self._direct = direct
        self._admission = admission
        self.find_route = find_route
        self._elsewhere = elsewhere
        self._forwarder = forwarder
        self._domain = domain
        self._trusted = frozenset(trusted_proxies)
        self._meter = meter
        self._names: dict[str, str] = {}  # by Host header: what app, if any, may answer there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.in_flight += 1
        answer = _Answer(send)
        steps = Steps(self._answer(scope, receive, answer))
        try:
            await steps.run()
        finally:
            self.in_flight -= 1
            # Whatever became of the client: the guest used CPU.
            if answer.use is not None:
                self._meter(
                    answer.use.record(
                        request_id=answer.request_id,
                        outcome=answer.outcome,
                        status=answer.status,
                        host_ns=steps.spent_ns,
                        bytes_in=_head_bytes_in(scope) + answer.taken_bytes,
                        bytes_out=answer.sent_bytes,
                    )
                )

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            incoming = self.read(scope)
            answer.request_id, answer.accept = incoming.request_id, incoming.accept
            job: JobScope | None = scope.get(JOB_SCOPE)
            if job is not None:
                incoming = replace(incoming, ours=(*incoming.ours, *job.headers))
            await self._serve(scope, receive, incoming, answer)
            answer.outcome = "ok"
        except ClientDisconnected as error:
            answer.outcome = error.code
            if answer.status:
                answer.abort()
            # Gone as a rule, and nobody reads this; or it sent a body that is no HTTP.
            await answer.fail(BadRequest(error.message))
        except IsopodError as error:
            answer.outcome = error.code
            await answer.fail(error)
        except Exception:
            _log.exception("request %s failed inside the gateway", answer.request_id)
            failed = IsopodError("the gateway failed")
            answer.outcome = failed.code
            await answer.fail(failed)

    async def _serve(
        self, scope: Scope, receive: Receive, incoming: Incoming, answer: _Answer
    ) -> None:
        if self.draining:
            raise NodeDraining("this worker is shutting down")
        try:
            await self._serve_once(scope, receive, incoming, answer)
        except VolumeNotFound:
            # Nothing has begun. It goes where another worker serves the app from now on, it may be,
            # and the routes here are a moment behind.
            if FORWARDED in scope:
                raise WorkerUnavailable("this app is answered by another worker by now") from None
            await asyncio.sleep(_ROUTES_S)
            await self._serve_once(scope, receive, incoming, answer)

    async def _serve_once(
        self, scope: Scope, receive: Receive, incoming: Incoming, answer: _Answer
    ) -> None:
        route = self.route_at(incoming.host)
        if self._elsewhere(route) is not None:
            if await self._forwarder.forward(
                lambda: self._elsewhere(self.route_at(incoming.host)),
                scope,
                receive,
                answer.send,
                tenant=route.tenant,
                request_id=incoming.request_id,
            ):
                return
            route = self.route_at(incoming.host)
        direct = self._direct.of(route)
        self._admission.enter(route)
        try:
            if direct is None and await self._answer_beside(route, scope, incoming, answer):
                return
            if direct is None:
                request = self.guest_request(scope, incoming)
                job: JobScope | None = scope.get(JOB_SCOPE)
                deadline_ms = job.deadline_ms if job else route.spec.limits.deadline_ms
                await self._invoke(route, request, incoming, receive, answer, deadline_ms)
            else:
                answer.use = DirectUse(route)
                asked = _direct_request(scope)
                identity = incoming.request_id
                await self._direct.answer(direct, route, asked, identity, answer.send)
        finally:
            egress = answer.sent_bytes + (answer.use.egress_bytes if answer.use else 0)
            self._admission.leave(route, cpu_ns=answer.cpu_ns, egress_bytes=egress)

    async def _answer_beside(
        self, route: Route, scope: Scope, incoming: Incoming, answer: _Answer
    ) -> bool:
        """Whether a file beside the app was the answer. Jobs are of the app alone."""
        if not route.spec.static or JOB_SCOPE in scope:
            return False
        answer.use = DirectUse(route)
        asked = _direct_request(scope)
        if await self._direct.answer_beside(route, asked, incoming.request_id, answer.send):
            return True
        answer.use = None
        return False

    async def _invoke(
        self,
        route: Route,
        request: GuestRequest,
        incoming: Incoming,
        receive: Receive,
        answer: _Answer,
        deadline_ms: int,
    ) -> None:
        limits = route.spec.limits
        limit_bytes = limits.max_request_mib * _MIB
        if incoming.content_length is not None and incoming.content_length > limit_bytes:
            raise BodyTooLarge(f"the request body is larger than {limits.max_request_mib} MiB")
        body = RequestBody(receive, has_body=incoming.has_body, limit_bytes=limit_bytes)
        pool = self._fleet.pool(route)
        acquired = await pool.acquire(incoming.request_id)
        slot = acquired.slot
        timing = Timing(queue_ms=acquired.queue_ms, start_ms=acquired.start_ms)
        use = answer.use = RequestUse(slot, cold=acquired.start_ms > 0)
        invocation = Invocation(
            slot,
            request,
            body,
            answer.send,
            timing,
            incoming.request_id,
            deadline_ms=deadline_ms,
        )
        healthy = False
        try:
            await invocation.run()
            healthy = not self._out_of_memory(slot, answer)
        except IsopodError as error:
            # An app's own exception leaves its guest able to serve on; our stops do not, if it has
            # one request at a time.
            healthy = slot.guest.idle and not isinstance(error, MemoryLimitExceeded)
            answer.timing = timing
            if not isinstance(error, ClientDisconnected):
                pool.errors += 1
                slot.report(error, incoming.request_id)
            raise
        except BaseException:
            healthy = slot.guest.idle
            raise
        finally:
            use.end()
            answer.taken_bytes = body.taken
            answer.cpu_ns = slot.uncounted_cpu_ns()
            pool.release(slot, reusable=healthy)

    def answers(self, scope: Scope) -> bool:
        """Whether this worker is the one for a request that another has handed over."""
        try:
            return self._elsewhere(self.route_at(self.read(scope).host)) is None
        except (AppUnknown, VolumeNotFound):
            return False
        except IsopodError:
            return True  # it is answered with that

    def read(self, scope: Scope) -> Incoming:
        """Its headers. Raises BadRequest."""
        client, scheme = _client(scope), str(scope.get("scheme", "http"))
        if scope.get("method") == "CONNECT":
            # An app's 200 would turn the connection into a tunnel (RFC 9110 9.3.6).
            raise BadRequest("CONNECT is for proxies, and this is none")
        if not _raw_path(scope).startswith("/"):
            # RFC 9112 3.2: "*" is no app's matter, and an authority is a proxy's.
            raise BadRequest("the request's target is not a path")
        return read_incoming(
            scope["headers"],
            client=client,
            scheme=_SCHEMES.get(scheme, scheme),
            trusted=client in self._trusted,
            http2=scope.get("http_version", "").startswith("2"),
            known_id=scope.get(FORWARDED, ""),
        )

    def route_at(self, host: str) -> Route:
        name = self._names.get(host)
        if name is None:
            name = app_name_of(hostname_of(host), self._domain) or ""
            if len(host) <= _LONGEST_HOST:
                if len(self._names) >= _MAX_NAMES:
                    self._names.clear()
                self._names[host] = name
        route = route_of(name, self.find_route) if name else None
        if route is None:
            hostname = hostname_of(host)
            raise AppUnknown(
                f"no app answers at {hostname[:253]!r}",
                hint=f"deploy one with `isopod deploy --name {name or 'NAME'}`; "
                f"apps answer at NAME.{self._domain}",
            )
        return route

    def guest_request(self, scope: Scope, incoming: Incoming) -> GuestRequest:
        version = scope.get("http_version", "1.1")
        scheme = scope.get("scheme", "http")
        return GuestRequest(
            method=scope.get("method", "GET"),  # a WebSocket's scope has none
            path=_raw_path(scope),
            query=_escaped(scope["query_string"]),
            protocol=f"HTTP/{version}",
            scheme=scheme,
            host=hostname_of(incoming.host),
            port=port_of(incoming.host, scheme),
            client=_client(scope),
            headers=incoming.headers,
            has_body=incoming.has_body,
            request_id=incoming.request_id,
        )

    def _out_of_memory(self, slot: Slot, answer: _Answer) -> bool:
        """The app caught its MemoryError and answered 500 itself: its log names the limit, and
        the instance, whose memory never shrinks, is replaced."""
        if not (slot.said_memory_error and answer.status >= 500):
            return False
        limit = slot.route.spec.limits.memory_mib
        slot.report(
            MemoryLimitExceeded(
                f"the app reached its memory limit of {limit} MiB; the instance is replaced"
            )
        )
        return True


class _Answer:
    """What the client has got so far, so that an error is told once or not at all."""

    def __init__(self, send: Send) -> None:
        self.request_id = ""
        self.accept = ""
        self.status = 0
        self.outcome = "ended"  # by us (the worker stops), until it ends by itself
        self.use: RequestUse | DirectUse | None = None  # once it had an instance, or needs none
        self.taken_bytes = 0  # of the request's body
        self.sent_bytes = 0  # of the response, head and body
        self.cpu_ns = 0  # that its guest used
        self.timing: Timing | None = None
        self._send = send

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.sent_bytes += head_bytes(_STATUS_LINE, message["headers"])
        else:
            self.sent_bytes += len(message["body"])
        await self._send(message)

    async def fail(self, error: IsopodError) -> None:
        if self.status:
            self.abort()
        # A request whose headers were refused has none yet.
        self.request_id = self.request_id or os.urandom(8).hex()
        status, headers, body = error_page(error, request_id=self.request_id, accept=self.accept)
        timing = self.timing.header() if self.timing is not None else no_guest()
        headers += [
            (b"x-request-id", self.request_id.encode()),
            (b"server-timing", timing.encode()),
        ]
        if self.timing is not None and self.use is not None and self.use.route.spec.debug:
            headers.append(self.timing.cpu_header())
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def abort(self) -> None:
        """Cut the response: the client must not take a part for the whole."""
        raise ResponseCut(self.request_id)


def _direct_request(scope: Scope) -> DirectRequest:
    headers = [*scope["headers"]]
    return DirectRequest(
        scope["method"], _raw_path(scope), _escaped(scope["query_string"]), headers
    )


def _client(scope: Scope) -> str:
    address, _ = scope.get("client") or ("", 0)
    return str(address)


def _raw_path(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return _escaped(raw.partition(b"?")[0])


def _escaped(part: bytes) -> str:
    """Some clients, curl for one, send letters as they are that a URL has escaped: apps in every
    language shall see the same."""
    if not part.isascii():
        part = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], part)
    return part.decode("ascii")


def _head_bytes_in(scope: Scope) -> int:
    line = len(scope["method"]) + len(scope["path"]) + len(scope["query_string"])
    return head_bytes(line + _REQUEST_LINE, scope["headers"])
