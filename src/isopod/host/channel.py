"""Between a worker and the broker: one message a packet, connected sockets beside them.

The pair of sockets outlives both ends: the supervisor holds it too, so a new process takes over
where its predecessor ended. A broker that begins says hello; a worker then asks again for what it
has no answer to. Answers to nobody (of a worker that was) are dropped.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from isopod.host.outside import Outside, OutsideError
from isopod.host.packets import Packets

_MAX_TASKS = 4096  # of one worker
_MAX_HOSTS = 8
_LONGEST_S = 60.0  # no broker takes longer: its own limits are below


class BrokerClient(Packets):
    """A worker's end. Fulfils `isopod.host.outside.Outside`."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        # Not what a predecessor's were: its answers may still come.
        self._next = secrets.randbits(48)
        self._asked: dict[int, tuple[dict[str, Any], asyncio.Future[Any]]] = {}

    async def resolve(self, app: str, host: str, port: int) -> list[str]:
        found = await self._ask({"app": app, "resolve": host, "port": port})
        return [str(one) for one in found]

    async def connect(
        self,
        app: str,
        hosts: Sequence[str],
        address: str,
        port: int,
        *,
        datagrams: bool = False,
    ) -> socket.socket:
        body = {"app": app, "connect": list(hosts), "address": address, "port": port}
        body["datagrams"] = datagrams
        made: socket.socket = await self._ask(body)
        return made

    async def _ask(self, body: dict[str, Any]) -> Any:
        self._next += 1
        number = body["id"] = self._next
        answered: asyncio.Future[Any] = self._loop.create_future()
        self._asked[number] = (body, answered)
        try:
            self._send(body)
            async with asyncio.timeout(_LONGEST_S):
                return await asyncio.shield(answered)
        except asyncio.CancelledError:
            answered.add_done_callback(_drop)
            answered.cancel()
            raise
        except TimeoutError:
            raise OutsideError(
                "ETIMEDOUT", "isopod: the node's broker of connections does not answer"
            ) from None
        finally:
            del self._asked[number]

    def _take(self, body: dict[str, Any], handed: list[int]) -> None:
        if "hello" in body:
            for asked, _ in list(self._asked.values()):
                self._send(asked)
            return
        _, answered = self._asked.get(int(body["id"]), (None, None))
        if answered is None or answered.done():
            return
        if "error" in body:
            name, text = body["error"]
            answered.set_exception(OutsideError(str(name), str(text)))
        elif "addresses" in body:
            answered.set_result(list(body["addresses"]))
        elif handed:
            answered.set_result(socket.socket(fileno=handed.pop()))
        else:  # it was sent, and this process has no number left for it
            answered.set_exception(OutsideError("EMFILE", os.strerror(errno.EMFILE)))


def _drop(answered: asyncio.Future[Any]) -> None:
    """A connection that was made for somebody who waits no more."""
    if not answered.cancelled() and answered.exception() is None:
        made = answered.result()
        if isinstance(made, socket.socket):
            made.close()


class BrokerServer(Packets):
    """The broker's end for one worker."""

    def __init__(self, channel: socket.socket, outside: Outside) -> None:
        super().__init__(channel)
        self._outside = outside
        self.closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._send({"hello": os.getpid()})

    def close(self) -> None:
        """Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        for task in self._tasks:
            task.cancel()
        super().close()

    def _ended(self) -> None:
        self.close()  # its worker is gone for good

    def _take(self, body: dict[str, Any], _handed: list[int]) -> None:
        number = int(body["id"])
        if len(self._unsent) >= _MAX_TASKS:
            return  # it asks and does not read: that is its own affair
        if len(self._tasks) >= _MAX_TASKS:
            self._send({"id": number, "error": ["EAGAIN", "isopod: the node connects too much"]})
            return
        task = self._loop.create_task(self._answer(number, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, body: dict[str, Any]) -> None:
        made: socket.socket | None = None
        answer: dict[str, Any] = {"id": number}
        try:
            app, port = str(body["app"]), int(body["port"])
            if "resolve" in body:
                answer["addresses"] = await self._outside.resolve(app, str(body["resolve"]), port)
            else:
                hosts = [str(host) for host in body["connect"][:_MAX_HOSTS]]
                address, datagrams = str(body["address"]), bool(body.get("datagrams"))
                made = await self._outside.connect(app, hosts, address, port, datagrams=datagrams)
        except OutsideError as error:
            answer["error"] = [error.name, error.text]
        except Exception as error:
            # Else its worker would wait until it gives up.
            answer["error"] = ["EIO", f"isopod: the broker failed: {type(error).__name__}"]
        self._send(answer, made)
