"""An app's command in an instance of its own: no request, no snapshot, and an end.

It is counted like the instances that serve: in the node's memory, in its tenant's quota and on its
bill. It may be ended for room as a request may, and its output is in the app's log.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from isopod.errors import ClientDisconnected, DeadlineExceeded, IsopodError
from isopod.gateway.admission import Admission
from isopod.gateway.fleet import Fleet
from isopod.gateway.slot import MakeGuest
from isopod.model.job import Outcome
from isopod.model.log import Stream
from isopod.model.route import Route
from isopod.runtimes.guest import Guest, OutputSink

_CLEAR_S = 0.1
_KEPT_BYTES = 16 << 10  # of its output, for whoever waits for it


class Commands:
    """Runs commands in a worker."""

    def __init__(self, *, fleet: Fleet, admission: Admission) -> None:
        self._fleet, self._admission = fleet, admission

    async def run(
        self, route: Route, make: MakeGuest, *, timeout_s: float, gone: asyncio.Event
    ) -> Outcome:
        """`make` makes the guest whose boot is the command. What goes wrong is the outcome."""
        tail = Tail(_KEPT_BYTES)
        request_id = os.urandom(8).hex()
        try:
            cpu_ms = await self._run(route, _told(make, tail), request_id, timeout_s, gone)
        except IsopodError as error:
            text = tail.text()
            return Outcome(error.code, error.message, request_id=request_id, output=text)
        return Outcome("ok", request_id=request_id, cpu_ms=cpu_ms, output=tail.text())

    async def _run(
        self,
        route: Route,
        make: MakeGuest,
        request_id: str,
        timeout_s: float,
        gone: asyncio.Event,
    ) -> float:
        self._admission.enter(route)
        cpu_ns = egress_bytes = 0
        try:
            with self._fleet.command_slot(route, make) as slot:
                slot.request_id = request_id

                async def watch() -> None:
                    await gone.wait()
                    slot.stop(ClientDisconnected("nobody waits for the command any more"))

                async def clear() -> None:
                    """One instance at a time has the app's volumes: those that idle end."""
                    while route.volumes and not slot.memory_bytes:
                        self._fleet.sleep(route.name)
                        await asyncio.sleep(_CLEAR_S)

                watching = [asyncio.create_task(watch()), asyncio.create_task(clear())]
                try:
                    async with asyncio.timeout(timeout_s):
                        await slot.claim()
                        if gone.is_set():
                            raise ClientDisconnected("nobody waits for the command any more")
                        await slot.start()
                except TimeoutError:
                    error = DeadlineExceeded(f"the command did not end within {timeout_s:g} s")
                    slot.report(error)
                    raise error from None
                except IsopodError as error:
                    raise slot.stopped_by or error from error
                finally:
                    for task in watching:
                        task.cancel()
                    cpu_ns = slot.uncounted_cpu_ns()
                    egress_bytes = slot.started_egress_bytes
                return slot.cpu_ns / 1e6
        finally:
            self._admission.leave(route, cpu_ns=cpu_ns, egress_bytes=egress_bytes)


class Tail:
    """The last so many bytes of what was printed."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._pieces: deque[bytes] = deque()

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        while self._held - len(self._pieces[0]) >= self._size:
            self._held -= len(self._pieces.popleft())

    def text(self) -> str:
        return b"".join(self._pieces)[-self._size :].decode("utf-8", "replace")


def _told(make: MakeGuest, tail: Tail) -> MakeGuest:
    """Its output also goes to `tail`."""

    async def made(route: Route, output: OutputSink) -> tuple[Guest, Callable[[], None]]:
        def both(stream: Stream, data: bytes) -> None:
            tail.add(data)
            output(stream, data)

        return await make(route, both)

    return made
