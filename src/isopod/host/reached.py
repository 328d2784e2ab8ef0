"""What the apps of a worker connect to: noted for who wants to know which list an app needs."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from isopod.host.egress import Refused, parse_wanted
from isopod.host.outside import Outside, OutsideError

_APPS, _EACH = 500, 100  # that are remembered


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one app, as "host:port", in the order of their first time."""

    connected: dict[str, None] = field(default_factory=dict)  # or tried to, and was let
    refused: dict[str, str] = field(default_factory=dict)  # -> why


class Reached:
    """A worker's."""

    def __init__(self) -> None:
        self._apps: OrderedDict[str, Seen] = OrderedDict()

    def seen(self, app: str) -> Seen:
        return self._apps.get(app) or Seen()

    def forget(self, app: str) -> None:
        self._apps.pop(app, None)

    def note(self, app: str, host: str, port: int, refused: str = "") -> None:
        """Whatever a guest asks for: what is no host is not noted, and no more than a number."""
        try:
            wanted = str(parse_wanted(host, port))
        except Refused:
            return
        seen = self._apps.setdefault(app, Seen())
        self._apps.move_to_end(app)
        if len(self._apps) > _APPS:
            self._apps.popitem(last=False)
        if len(seen.connected) + len(seen.refused) >= _EACH:
            return
        if refused:
            seen.refused.setdefault(wanted, refused[:300])
        else:
            seen.connected.setdefault(wanted)


class Noting:
    """Fulfils `isopod.host.outside.Outside` by another one, and notes what was asked of it."""

    def __init__(self, outside: Outside, reached: Reached) -> None:
        self._outside, self._reached = outside, reached

    async def resolve(self, app: str, host: str, port: int) -> list[str]:
        try:
            return await self._outside.resolve(app, host, port)
        except OutsideError as error:
            if error.name == "EACCES":
                self._reached.note(app, host, port, refused=error.text)
            raise

    async def connect(
        self,
        app: str,
        hosts: Sequence[str],
        address: str,
        port: int,
        *,
        datagrams: bool = False,
    ) -> socket.socket:
        refused = ""
        try:
            return await self._outside.connect(app, hosts, address, port, datagrams=datagrams)
        except OutsideError as error:
            refused = error.text if error.name == "EACCES" else ""
            raise
        finally:
            if hosts:
                self._reached.note(app, hosts[0], port, refused=refused)
