"""Passes lines on between workers (see `isopod.gateway.lines`), as `goes_to` decides.

A worker asks for a line by handing over one end of it. It is passed on to the worker that is asked
for, or closed, which is the answer no. Requests themselves do not come by here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from isopod.host.packets import Packets
from isopod.model.tenant import TenantName

# That wait for one worker, which may just be starting.
_MAX_WAITING = 256


def goes_to(asks: int, to: Any, workers: Mapping[int, TenantName | None]) -> int | None:
    """Which of `workers` (each with its tenant, if it is one tenant's own) a line of `asks` to `to`
    goes to; None: nowhere. Shared workers reach each other by number, and a tenant's own by the
    tenant's name; a tenant's own worker reaches nobody."""
    if asks not in workers or workers[asks] is not None:
        return None
    if type(to) is int:
        return to if to != asks and workers.get(to, "") is None else None
    if isinstance(to, str):
        return next((index for index, tenant in workers.items() if tenant == to), None)
    return None


class Switchboard:
    def __init__(self) -> None:
        self._said: dict[str, Any] = {}
        self._ports: dict[int, _Port] = {}
        self._tenants: dict[int, TenantName | None] = {}

    def add(self, index: int, channel: socket.socket, *, tenant: TenantName | None) -> None:
        """`channel`: our end of the worker's pair, which belongs to the switchboard from now on."""
        self._tenants[index] = tenant
        self._ports[index] = _Port(
            channel, lambda to, line: self._pass_on(index, to, line), lambda: self._said
        )
        self._tell()

    def remove(self, index: int) -> None:
        self._tenants.pop(index, None)
        if (port := self._ports.pop(index, None)) is not None:
            port.close()
            self._tell()

    def _tell(self) -> None:
        """Every worker how many there are: each has its part of the node's memory."""
        self._said = {"processes": len(self._ports)}
        for port in self._ports.values():
            port.tell()

    def close(self) -> None:
        for index in list(self._ports):
            self.remove(index)

    def _pass_on(self, asks: int, to: Any, line: socket.socket) -> None:
        index = goes_to(asks, to, self._tenants)
        if index is None:
            line.close()
        else:
            self._ports[index].pass_on(asks, line)


class _Port(Packets):
    """One worker."""

    def __init__(
        self,
        channel: socket.socket,
        asked: Callable[[Any, socket.socket], None],
        said: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(channel)
        self._asked = asked
        self._said = said

    def tell(self) -> None:
        if len(self._unsent) < _MAX_WAITING:  # else it will say hello
            self._send(self._said())

    def pass_on(self, asks: int, line: socket.socket) -> None:
        if len(self._unsent) >= _MAX_WAITING:
            line.close()
        else:
            self._send({"from": asks}, line)

    def _take(self, body: dict[str, Any], handed: list[int]) -> None:
        if "hello" in body:  # a process that has begun
            self.tell()
        elif handed:
            self._asked(body.get("to"), socket.socket(fileno=handed.pop()))
