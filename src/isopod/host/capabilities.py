"""What one guest may ask of the host, by the first byte of its frame, and the waits that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from isopod.errors import EngineError, IsopodError
from isopod.host.connections import Connections, OpenConnections, SocketWait
from isopod.host.digests import Digests
from isopod.host.outside import NoOutside, Outside
from isopod.host.tls import TlsContexts, TlsSessions

NETWORK, TLS, DIGEST = b"N", b"T", b"K"
OPERATIONS = frozenset({NETWORK, TLS, DIGEST})


class Answers(Protocol):
    """Takes what the guest gets. Never called after `close`."""

    def answer(self, data: bytes) -> None: ...

    def failed(self, error: IsopodError) -> None: ...

    def charge(self, cpu_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class World:
    """Of a process that runs guests: what their capabilities are made of."""

    outside: Outside
    contexts: TlsContexts
    digests: Digests
    open_now: OpenConnections

    @staticmethod
    def make(outside: Outside, *, trust: str, extra: str, key_folder: Path) -> World:
        contexts = TlsContexts(trust=trust, extra=extra, key_folder=key_folder)
        return World(outside, contexts, Digests(), OpenConnections())

    def close(self) -> None:
        self.digests.close()


def no_world(folder: Path, outside: NoOutside | None = None) -> World:
    """For processes that build: no network. `outside` remembers who was asked for."""
    return World.make(outside or NoOutside(), trust="", extra="", key_folder=folder)


class Capabilities:
    """One instance's. Made when it first asks: most never do."""

    def __init__(self, world: World, *, app: str, tenant: str, answers: Answers) -> None:
        self._digests = world.digests
        self._tenant = tenant
        self._answers = answers
        self.connections = Connections(app, outside=world.outside, open_now=world.open_now)
        self._tls = TlsSessions(world.contexts)
        self._waiting: asyncio.Task[None] | None = None
        self._closed = False

    def call(self, frame: bytes) -> None:
        """Raises GuestProtocolError for what only a broken guest sends, EngineError for what is
        our fault."""
        try:
            self._call(frame)
        except IsopodError:
            raise
        except Exception as error:
            raise EngineError("a host call failed inside the node") from error

    def _call(self, frame: bytes) -> None:
        kind, rest = frame[:1], frame[1:]
        if kind == TLS:
            self._answers.answer(self._tls.call(rest))
            return
        if kind == DIGEST:
            charge = self._answers.charge
            self._wait(self._digests.call(rest, tenant=self._tenant, charge=charge))
            return
        answer = self.connections.call(rest)
        if isinstance(answer, bytes):
            self._answers.answer(answer)
        elif isinstance(answer, SocketWait):
            answer.start(self._answers.answer, self._broken)
        else:
            self._wait(answer)

    def _wait(self, answer: Coroutine[Any, Any, bytes]) -> None:
        self._waiting = asyncio.get_running_loop().create_task(self._finish(answer))

    def _broken(self, error: Exception) -> None:
        failed = EngineError("a host call failed inside the node")
        failed.__cause__ = error
        self._answers.failed(failed)

    async def _finish(self, answer: Coroutine[Any, Any, bytes]) -> None:
        try:
            data = await answer
        except IsopodError as error:
            failed: IsopodError = error
        except Exception as error:
            # Else the guest would wait until its deadline.
            failed = EngineError("a host call failed inside the node")
            failed.__cause__ = error
        else:
            if not self._closed:
                self._answers.answer(data)
            return
        if not self._closed:
            self._answers.failed(failed)

    def close(self) -> None:
        """Ends every connection. Safe to call twice."""
        self._closed = True
        self.connections.close()
        self._tls.close()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
