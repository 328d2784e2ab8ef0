"""The runtimes of one worker: each gets ready once, before the worker is shut in for good."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from isopod.errors import RuntimeNotPrepared
from isopod.runtimes.base import Guests, InWorker
from isopod.runtimes.direct import Direct
from isopod.runtimes.registry import Registry

_log = logging.getLogger("isopod.worker")


@dataclass
class WorkerRuntimes:
    """By name: those that make guests, and those whose apps the gateway answers itself."""

    guests: dict[str, Guests] = field(default_factory=dict)
    direct: dict[str, Direct] = field(default_factory=dict)

    @staticmethod
    def load(registry: Registry, lent: InWorker) -> WorkerRuntimes:
        """All that are prepared: after this no machine code can be mapped, and a mapped module
        costs no memory until a guest runs in it."""
        found = WorkerRuntimes()
        for runtime in registry:
            try:
                part = runtime.in_worker(lent)
            except RuntimeNotPrepared as error:
                _log.warning("%s; its apps are not served", error.message)
                continue
            if isinstance(part, Direct):
                found.direct[runtime.name] = part
            else:
                found.guests[runtime.name] = part
        return found
