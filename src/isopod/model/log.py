"""One line of an app's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Stream = Literal["stdout", "stderr", "isopod"]


@dataclass(frozen=True, slots=True)
class LogLine:
    """`stream` is "isopod" for what we say of the app (a trap, a limit, a start)."""

    at: float  # seconds since the epoch
    app: str
    stream: Stream
    message: str
    version: int = 0
    instance: str = ""
    request_id: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "app": self.app,
            "stream": self.stream,
            "message": self.message,
            "version": self.version,
            "instance": self.instance,
            "request_id": self.request_id,
        }
