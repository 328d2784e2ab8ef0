"""A job's request: one like any other, through the whole gateway, that control asked for.

So it is admitted, metered and logged as every request, wakes a sleeping app, and is answered where
the app's instances are. It differs in two things: its deadline is the job's, and it has a header
that no request from outside can have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from isopod.model.job import Outcome

JOB_SCOPE = "isopod.job"  # the key of a JobScope in an ASGI scope; no client can set one
_GRACE_S = 5.0  # after its deadline, for the wait for an instance and for the end
_KEPT_BYTES = 2000  # of the answer to a run that failed

Scope = dict[str, Any]
Serve = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


@dataclass(frozen=True, slots=True)
class JobScope:
    """What the gateway does otherwise."""

    headers: tuple[tuple[str, str], ...]
    deadline_ms: int


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
        async with asyncio.timeout(2 * timeout_s + _GRACE_S):
            await serve(_scope(host, job, path, timeout_s), receive, answer.send)
    except TimeoutError:
        return Outcome("deadline_exceeded", "the job had no instance in time")
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
        JOB_SCOPE: JobScope((("x-isopod-job", job),), round(timeout_s * 1e3)),
    }


class _Kept:
    """The answer, as far as its job's history needs it."""

    def __init__(self) -> None:
        self.status = 0
        self.request_id = ""
        self._code = ""
        self._body = b""
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
                    self._cpu_ms = float(spent[1])
        elif len(self._body) < _KEPT_BYTES:
            self._body += message["body"][: _KEPT_BYTES - len(self._body)]

    def outcome(self) -> Outcome:
        if 200 <= self.status < 300:
            return Outcome("ok", "", self.status, self.request_id, self._cpu_ms)
        code = self._code or "job_failed"
        said = self._body.decode("utf-8", "replace")
        message = f"it answered {self.status}"
        return Outcome(code, message, self.status, self.request_id, self._cpu_ms, said)
