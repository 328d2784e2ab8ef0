"""Work that an app does by the clock: one [[jobs]] of its manifest, and what came of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

_MOST_CHARS, _MOST_OUTPUT = 2_000, 64 << 10
# What a run is made by.
Trigger = Literal["schedule", "retry", "hand"]


@dataclass(frozen=True, slots=True)
class Job:
    """A request to `path`, or `command` in an instance of its own: one of the two."""

    name: str
    schedule: str  # cron, five fields, UTC
    path: str = ""
    command: str = ""
    timeout_s: float = 300.0
    retries: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Job:
        return Job(**body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, as the worker that ran it says. `code` is "ok" or an error's."""

    code: str
    message: str = ""
    status: int = 0  # of the answer, when it was a request
    request_id: str = ""  # in the app's log
    cpu_ms: float = 0.0
    output: str = ""  # the end of what a command printed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Outcome:
        """Of a worker, which may have been taken over: no more of it than is kept. ValueError,
        TypeError."""
        cpu_ms = float(body.get("cpu_ms", 0.0))
        return Outcome(
            code=str(body.get("code", "worker_lost"))[:_MOST_CHARS],
            message=str(body.get("message", ""))[:_MOST_CHARS],
            status=min(max(int(body.get("status", 0)), 0), 999),
            request_id=str(body.get("request_id", ""))[:_MOST_CHARS],
            cpu_ms=cpu_ms if math.isfinite(cpu_ms) else 0.0,
            output=str(body.get("output", ""))[-_MOST_OUTPUT:],
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job; also one that did not take place. Times are seconds since the epoch."""

    id: int
    job: str
    due_at: float
    trigger: Trigger
    attempt: int  # from 1
    version: int
    started_at: float
    ended_at: float | None  # None: under way
    outcome: str  # "running", "ok", "missed", "skipped", "interrupted", or an error's code
    message: str
    status: int
    request_id: str
    cpu_ms: float
