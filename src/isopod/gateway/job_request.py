"""A job's request: one like any other, through the whole gateway, that control asked for.

So it is admitted, metered and logged as every request, wakes a sleeping app, and is answered where
the app's instances are. It differs in two things: its deadline is the job's, and it has a header
that no request from outside can have.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from isopod.model.job import Outcome

JOB_SCOPE = "isopod.job"  # the key of a JobScope in an ASGI scope; no client can set one
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_MOST_MS = 3_600_000
_CODE = re.compile(rb"[a-z_]{1,40}")
_CPU = re.compile(rb"guest;dur=([0-9.]{1,20})")

Scope = dict[str, Any]
Serve = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


@dataclass(frozen=True, slots=True)
class JobScope:
    """What the gateway does otherwise, for the job of that name."""

    name: str
    deadline_ms: int

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """For the guest."""
        return (("x-isopod-job", self.name),)

    def to_json(self) -> dict[str, Any]:
        """For another worker."""
        return {"name": self.name, "deadline_ms": self.deadline_ms}

    @staticmethod
    def from_json(body: Any) -> JobScope | None:
        """What another worker says. ValueError."""
        if body is None:
            return None
        if not isinstance(body, dict) or set(body) != {"name", "deadline_ms"}:
            raise ValueError("a job is no job")
        name, deadline_ms = body["name"], body["deadline_ms"]
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ValueError("a job's name is none")
        if type(deadline_ms) is not int or not 0 < deadline_ms <= _MOST_MS:
            raise ValueError("a job's deadline is none")
        return JobScope(name, deadline_ms)


async def request_job(
    serve: Serve, *, host: str, job: str, path: str, timeout_s: float, gone: asyncio.Event
) -> Outcome:
    """POST `path` with an empty body. Ok is an answer of 200 to 299. `gone`: nobody wants to know
    any more, the request is abandoned."""
    answer = _Kept()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    try:
        await serve(_scope(host, job, path, timeout_s), receive, answer.send)
    except Exception:  # the answer was cut: the gateway has said why in the app's log
        return Outcome("job_failed", "the answer broke off", answer.status, answer.request_id)
    return answer.outcome()


def _scope(host: str, job: str, path: str, timeout_s: float) -> Scope:
    raw, _, query = path.partition("?")
    headers = [
        (b"host", host.encode()),
        (b"user-agent", b"isopod"),
        (b"accept", b"application/json"),
        (b"content-length", b"0"),
    ]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 0),
        JOB_SCOPE: JobScope(job, round(timeout_s * 1e3)),
    }


class _Kept:
    """The answer, as far as its job's history needs it."""

    def __init__(self) -> None:
        self.status = 0
        self.request_id = ""
        self._code = ""
        self._cpu_ms = 0.0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            for name, value in message["headers"]:
                if name == b"x-request-id":
                    self.request_id = value.decode("latin-1")
                elif name == b"x-isopod-error" and _CODE.fullmatch(value):
                    self._code = value.decode()
                elif name == b"server-timing" and (spent := _CPU.search(value)):
                    self._cpu_ms = _number(spent[1])

    def outcome(self) -> Outcome:
        if 200 <= self.status < 300:
            return Outcome("ok", "", self.status, self.request_id, self._cpu_ms)
        code = self._code or "job_failed"
        message = f"it answered {self.status}"
        return Outcome(code, message, self.status, self.request_id, self._cpu_ms)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
