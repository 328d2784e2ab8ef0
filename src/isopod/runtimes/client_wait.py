"""Waiting for a client: how long an exchange did, and what goes wrong when it reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from isopod.errors import EngineError, IsopodError


class ClientWait:
    """A stopwatch: deadlines do not count this time. Both ends may be said twice."""

    __slots__ = ("_since", "_total_s")

    def __init__(self) -> None:
        self._since: float | None = None
        self._total_s = 0.0

    @property
    def seconds(self) -> float:
        """So far."""
        since = self._since
        return self._total_s + (time.monotonic() - since if since is not None else 0.0)

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def end(self) -> None:
        if self._since is not None:
            self._total_s += time.monotonic() - self._since
            self._since = None

    def forget(self) -> None:
        """What was waited before; a wait that has begun goes on."""
        self._total_s = 0.0


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Whatever goes wrong in the gateway is an IsopodError: else the guest would wait for ever, as
    time with its client has no deadline."""
    try:
        yield
    except IsopodError:
        raise
    except Exception as error:
        raise EngineError(f"{what} could not be read") from error
