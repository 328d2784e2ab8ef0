"""Opens secrets for a worker, which holds them sealed and may not read the key.

A process beside the worker: it has the key in its memory, no file, no network, and parses nothing
of a tenant's. A worker that was taken over can have opened what the routes hold, since it may hold
any app; it does not learn the key, with which state.db and its backups could be read.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from isopod.errors import IsopodError, SecretsUnreadable
from isopod.model.route import Route
from isopod.model.secret import bound_to
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.sealing import SealingKey
from isopod.server.beside import start_beside
from isopod.settings import NodeSettings

_KEPT = 256  # apps whose secrets are kept open: the next instance of one does not ask again
_MAX_LINE_BYTES = 1 << 20


class Opener:
    """The worker's side."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._answers = line.makefile("rb")
        self._lock = threading.Lock()
        # The key is what is sealed: with other values there is nothing to be forgotten.
        self._open: OrderedDict[tuple[str, ...], dict[str, str]] = OrderedDict()

    async def secrets(self, route: Route) -> dict[str, str]:
        """The app's, by name. SecretsUnreadable."""
        if not route.secrets:
            return {}
        key = (route.name, *sorted(route.secrets.values()))
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = await asyncio.to_thread(self._ask, route)
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return found

    def _ask(self, route: Route) -> dict[str, str]:
        question = {
            name: (bound_to(route.tenant, route.name, name), sealed)
            for name, sealed in route.secrets.items()
        }
        answer = b""
        with self._lock, suppress(ConnectionError):
            self._line.sendall(json.dumps(question).encode() + b"\n")
            answer = self._answers.readline()
        if not answer:
            raise SecretsUnreadable("the process that opens secrets has ended")
        body = json.loads(answer)
        if "error" in body:
            raise IsopodError.from_wire(body["error"])
        return {str(name): str(value) for name, value in body["values"].items()}

    def is_gone(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # it is being asked, and will be missed
        try:
            return self._line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        finally:
            self._lock.release()


def start_opener(settings: NodeSettings, features: Features, *, others: Iterable[int]) -> Opener:
    """Fork it, as `start_maker` does."""
    return Opener(start_beside(lambda line: _serve(settings, features, line), features, others))


def _serve(settings: NodeSettings, features: Features, line: socket.socket) -> None:
    key = SealingKey.at(settings.sealing_key_path)
    key.open(key.seal("", bound_to=""), bound_to="")  # what this loads, it cannot load later
    sandbox = shut_in(Folders(read=(), change=()), features=features)
    sandbox.guard()
    with line.makefile("rwb") as file:
        while question := file.readline(_MAX_LINE_BYTES):
            file.write(_answer(key, question) + b"\n")
            file.flush()


def _answer(key: SealingKey, question: bytes) -> bytes:
    try:
        asked: dict[str, tuple[str, str]] = json.loads(question)
        values = {name: key.open(sealed, bound_to=bound) for name, (bound, sealed) in asked.items()}
    except IsopodError as bad:
        return json.dumps({"error": bad.to_wire()}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return json.dumps(
            {"error": SecretsUnreadable("no secret was asked for").to_wire()}
        ).encode()
    return json.dumps({"values": values}).encode()
