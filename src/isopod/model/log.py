"""One line of an app's log, and how grave it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Stream = Literal["stdout", "stderr", "isopod"]
Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)  # the least grave first


@dataclass(frozen=True, slots=True)
class LogLine:
    """`stream` is "isopod" for what we say of the app (a trap, a limit, a start). `level` is
    known of those lines only; of what an app prints, its reader finds it out. `dropped`: lines of
    the app's that this line stands for."""

    at: float  # seconds since the epoch
    app: str
    stream: Stream
    message: str
    version: int = 0
    instance: str = ""
    request_id: str = ""
    level: Level | None = None
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "at": self.at,
            "app": self.app,
            "stream": self.stream,
            "message": self.message,
            "version": self.version,
            "instance": self.instance,
            "request_id": self.request_id,
        }
        if self.level is not None:
            body["level"] = self.level
        if self.dropped:
            body["dropped"] = self.dropped
        return body
