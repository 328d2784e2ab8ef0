"""Lines of control's in an app's log, beside those that workers write."""

from __future__ import annotations

import logging

import orjson

from isopod.control.apps import log_paths
from isopod.control.node import Node
from isopod.model.ids import AppName
from isopod.model.log import Level, LogLine

_log = logging.getLogger("isopod.logs")


def say(
    node: Node,
    app: AppName,
    message: str,
    *,
    version: int,
    level: Level = "warning",
    request_id: str = "",
) -> None:
    """`app` is its label. Never raises: a line less is better than what it tells of undone."""
    line = LogLine(
        at=round(node.clock(), 3),
        app=app,
        stream="isopod",
        message=message,
        version=version,
        request_id=request_id,
        level=level,
    )
    _, path = log_paths(node.settings, app)
    try:
        with path.open("ab", buffering=0) as log:
            log.write(orjson.dumps(line.to_json()) + b"\n")
    except OSError as bad:
        _log.warning("cannot write %s: %s", path, bad.strerror)
