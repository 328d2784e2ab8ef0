"""One request through one guest, under its deadline; the response streams to the client.

The deadline counts the app's time: waits for the client (a slow upload, a slow download) stop its
clock, and are bounded on their own. A bound on its CPU counts neither those nor the app's sleeps.
An instance with many requests at once is not kept from others by one that streams for long: there,
each piece of a response has the deadline to itself.
"""

from __future__ import annotations

import asyncio

from isopod.errors import (
    ClientDisconnected,
    CpuLimitExceeded,
    DeadlineExceeded,
    GuestProtocolError,
    IsopodError,
    MemoryLimitExceeded,
    ResponseTooLarge,
)
from isopod.gateway.body import RequestBody, Send, send_piece
from isopod.gateway.headers import outgoing
from isopod.gateway.slot import Slot
from isopod.gateway.timing import Timing
from isopod.runtimes.guest import GuestRequest, GuestResponse

# A request that is not answered by then is watched for its client going away.
_WATCH_AFTER_S = 0.05
# A guest whose client has gone may end its request for so long, before it is ended itself.
_GRACE_S = 0.25
# Between two looks at the CPU of a request that has little left of it and waits.
_CPU_LOOK_S = 0.005
_NO_BODY = frozenset({204, 304})


class Invocation:
    """Runs a request."""

    def __init__(
        self,
        slot: Slot,
        request: GuestRequest,
        body: RequestBody,
        send: Send,
        timing: Timing,
        request_id: str,
        *,
        deadline_ms: int,
    ) -> None:
        self._slot = slot
        self._request = request
        self._body = body
        self._send = send
        self._timing = timing
        self._request_id = request_id
        self._exchange = slot.guest.exchange()
        self._cpu_before = slot.used_cpu_ns()
        self._loop = asyncio.get_running_loop()
        self._deadline_s = deadline_ms / 1e3
        self._cpu_limit_ns = slot.route.spec.limits.cpu_ms_per_request * 1_000_000
        self._cpu_timer: asyncio.TimerHandle | None = None
        self._response_limit = slot.route.spec.limits.max_response_mib << 20
        self._started = self._loop.time()
        self._stopped_by: IsopodError | None = None
        self._watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises IsopodError: the caller answers it, if the client has got nothing yet."""
        deadline = self._loop.call_later(self._deadline_s, self._check_deadline)
        self._deadline_timer = deadline
        if self._cpu_limit_ns:
            self._check_cpu()
        self._watch_timer = self._loop.call_later(_WATCH_AFTER_S, self._start_watch)
        try:
            response = await self._exchange.send(self._request, self._body.read)
            await self._respond(response)
        except IsopodError as error:
            raise self._reason(error) from error
        finally:
            self._deadline_timer.cancel()
            if self._cpu_timer is not None:
                self._cpu_timer.cancel()
            self._stop_watching()
            if not self._exchange.ended:
                self._exchange.stop()
            self._timing.guest_ms = (self._slot.used_cpu_ns() - self._cpu_before) / 1e6

    def _reason(self, error: IsopodError) -> IsopodError:
        """Why it really ended: our deadline or the client, before what the guest died of."""
        stopped_by = self._stopped_by or self._slot.stopped_by
        if stopped_by is not None:
            return stopped_by
        if self._slot.said_memory_error and error.code == "guest_failed":
            limit = self._slot.route.spec.limits.memory_mib
            return MemoryLimitExceeded(f"the app reached its memory limit of {limit} MiB")
        return error

    async def _respond(self, response: GuestResponse) -> None:
        exchange = self._exchange
        silent = self._request.method == "HEAD" or response.status in _NO_BODY
        _check_length(response, silent=silent)
        if not silent:
            self._check_size(max(len(response.body), response.length or 0))
        self._timing.guest_ms = (self._slot.used_cpu_ns() - self._cpu_before) / 1e6
        headers = outgoing(response.headers, self._request_id, self._timing.header())
        if self._slot.route.spec.debug:
            headers.append(self._timing.cpu_header())
        await self._send(
            {"type": "http.response.start", "status": response.status, "headers": headers}
        )
        if silent or not response.more:
            body = b"" if silent else response.body
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
            while response.more and await exchange.next_chunk() is not None:
                pass  # a body that HEAD asked to leave out
        else:
            await self._stream(response)
        if not exchange.ended:
            # The client has everything, and may go: what the app still does is not for it.
            self._stop_watching()
            await exchange.finish()

    async def _stream(self, response: GuestResponse) -> None:
        sent, chunk = 0, response.body
        while True:
            sent += len(chunk)
            self._check_size(sent)
            if response.length is not None and sent > response.length:
                raise GuestProtocolError(
                    f"the app sent more than the {response.length} bytes it declared"
                )
            await send_piece(chunk, self._send)
            if self._slot.capacity > 1:
                self._started = self._loop.time() - self._exchange.client_wait_s
            following = await self._exchange.next_chunk()
            if following is None:
                break
            chunk = following
        if response.length is not None and sent != response.length:
            raise GuestProtocolError(f"the app declared {response.length} bytes and sent {sent}")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    # -- what may end it early --------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        if size > self._response_limit:
            raise ResponseTooLarge(
                f"the response of app {self._slot.route.name!r} is larger than "
                f"{self._response_limit >> 20} MiB"
            )

    def _check_cpu(self) -> None:
        """A guest cannot use more CPU than time goes by, so there is nothing to look at before as
        much time as it has CPU left: a request costs a look or two, not one per slice."""
        left = self._cpu_limit_ns - (self._slot.used_cpu_ns() - self._cpu_before)
        if left > 0:
            delay = max(left / 1e9, _CPU_LOOK_S)
            self._cpu_timer = self._loop.call_later(delay, self._check_cpu)
            return
        self._stop(
            CpuLimitExceeded(
                f"app {self._slot.route.name!r} used more CPU than its limit of "
                f"{self._cpu_limit_ns // 1_000_000} ms per request"
            )
        )

    def _check_deadline(self) -> None:
        used = self._loop.time() - self._started - self._exchange.client_wait_s
        left = self._deadline_s - used
        if left > 0.001:
            self._deadline_timer = self._loop.call_later(left, self._check_deadline)
            return
        self._stop(
            DeadlineExceeded(
                f"app {self._slot.route.name!r} ran past its deadline of "
                f"{round(self._deadline_s * 1e3)} ms"
            )
        )

    def _start_watch(self) -> None:
        self._watch = self._loop.create_task(self._watch_client())

    def _stop_watching(self) -> None:
        self._watch_timer.cancel()
        if self._watch is not None:
            self._watch.cancel()

    async def _watch_client(self) -> None:
        try:
            await self._body.disconnected()
        except IsopodError as error:
            self._stop(error)
            return
        self._exchange.abandon()
        await asyncio.sleep(_GRACE_S)
        self._stop(ClientDisconnected("the client went away before the response was complete"))

    def _stop(self, error: IsopodError) -> None:
        if self._stopped_by is None:
            self._stopped_by = error
            self._exchange.stop()


def _check_length(response: GuestResponse, *, silent: bool) -> None:
    """A whole body that is not what its Content-Length says would desynchronise the client."""
    size = len(response.body)
    if silent or response.length is None:
        return
    if size > response.length or (not response.more and size != response.length):
        raise GuestProtocolError(f"the app declared {response.length} bytes and sent {size}")
