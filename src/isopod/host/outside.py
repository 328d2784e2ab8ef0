"""The network as a worker has it: names are looked up and connections made by somebody else.

A worker can make no socket (see `sandbox.seccomp`). It asks, and is handed a connected one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

_MAX_ASKED = 4


class OutsideError(Exception):
    """What the guest's call raises: `name` is an errno's ("ECONNREFUSED") or of a failed look-up
    ("EAI_NONAME"), "" `text`: what the C library says of it."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text


class Outside(Protocol):
    async def resolve(self, app: str, host: str, port: int) -> list[str]:
        """The addresses of `host` that the app may use. Raises OutsideError."""

    async def connect(
        self,
        app: str,
        hosts: Sequence[str],
        address: str,
        port: int,
        *,
        datagrams: bool = False,
    ) -> socket.socket:
        """A connected socket that does not block. `hosts`: what the app looked up to get `address`,
        any of which may be the one that it may connect to. `datagrams`: UDP, through a pair of
        sockets (see `datagrams`). Raises OutsideError."""


class NoOutside:
    """Where an app is built: what it connected to then would be lost with the snapshot."""

    def __init__(self) -> None:
        self.asked: list[str] = []  # hosts, the first few

    async def resolve(self, _app: str, host: str, _port: int) -> list[str]:
        raise self._error(host)

    async def connect(
        self,
        _app: str,
        hosts: Sequence[str],
        _address: str,
        _port: int,
        *,
        datagrams: bool = False,  # noqa: ARG002
    ) -> socket.socket:
        raise self._error(hosts[0])

    def _error(self, host: str) -> OutsideError:
        if len(self.asked) < _MAX_ASKED and host not in self.asked:
            self.asked.append(host)
        return OutsideError(
            "ENETUNREACH",
            f"isopod: no network to reach {host!r} while the app is deployed; connect in a request",
        )
