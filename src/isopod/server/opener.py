"""Opens secrets for a worker, which holds them sealed and may not read the key.

A process beside the worker: it has the key in its memory, no file, no network, and parses nothing
of a tenant's. A worker that was taken over can have opened what the routes hold, since it may hold
any app; it does not learn the key, with which state.db and its backups could be read.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from isopod.errors import IsopodError, SecretsUnreadable
from isopod.model.route import Route
from isopod.model.secret import bound_to
from isopod.sandbox.features import Features
from isopod.sandbox.worker import Folders, shut_in
from isopod.sealing import SealingKey
from isopod.server.beside import Beside, answer_all, start_beside
from isopod.settings import NodeSettings

_KEPT = 256  # apps whose secrets are kept open: the next instance of one does not ask again


class Opener(Beside):
    """The worker's side."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(line)
        # The key is what is sealed: with other values there is nothing to be forgotten.
        self._open: OrderedDict[tuple[str, ...], dict[str, str]] = OrderedDict()

    async def secrets(self, route: Route) -> dict[str, str]:
        """The app's, by name. SecretsUnreadable."""
        if not route.secrets:
            return {}
        key = (route.name, *sorted(route.secrets.values()))
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = await asyncio.to_thread(self._opened, route)
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return found

    def _opened(self, route: Route) -> dict[str, str]:
        question = {
            name: (bound_to(route.tenant, route.name, name), sealed)
            for name, sealed in route.secrets.items()
        }
        gone = SecretsUnreadable("the process that opens secrets has ended")
        body = self._ask(question, gone=gone)
        return {str(name): str(value) for name, value in body["values"].items()}


def start_opener(settings: NodeSettings, features: Features, *, others: Iterable[int]) -> Opener:
    """Fork it, as `start_maker` does."""
    return Opener(start_beside(lambda line: _serve(settings, features, line), features, others))


def _serve(settings: NodeSettings, features: Features, line: socket.socket) -> None:
    key = SealingKey.at(settings.sealing_key_path)
    key.open(key.seal("", bound_to=""), bound_to="")  # what this loads, it cannot load later
    sandbox = shut_in(Folders(read=(), change=()), features=features)
    sandbox.guard()
    answer_all(line, lambda question: _answer(key, question))


def _answer(key: SealingKey, question: bytes) -> dict[str, Any]:
    try:
        asked: dict[str, tuple[str, str]] = json.loads(question)
        values = {name: key.open(sealed, bound_to=bound) for name, (bound, sealed) in asked.items()}
    except IsopodError as bad:
        return {"error": bad.to_wire()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {"error": SecretsUnreadable("no secret was asked for").to_wire()}
    return {"values": values}
