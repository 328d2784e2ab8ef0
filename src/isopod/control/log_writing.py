"""Lines of control's in an app's log, beside those that workers write."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO

import orjson

from isopod.control.log_files import log_paths, open_log
from isopod.control.node import Node
from isopod.model.ids import AppName
from isopod.model.log import Level, LogLine
from isopod.model.tenant import TenantName

_log = logging.getLogger("isopod.logs")


def say(
    node: Node,
    tenant: TenantName,
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
    older, path = log_paths(node.settings, tenant, app)
    try:
        with _open(older, path, most_bytes=node.settings.log_mib << 20) as log:
            log.write(orjson.dumps(line.to_json()) + b"\n")
    except OSError as bad:
        _log.warning("cannot write %s: %s", path, bad.strerror)


def _open(older: Path, path: Path, *, most_bytes: int) -> BinaryIO:
    """Workers set a log aside at half of that size. An app whose every job is refused before it
    prints has none that does."""
    log = open_log(path, append=True)
    if os.fstat(log.fileno()).st_size < most_bytes:
        return log
    log.close()
    path.replace(older)
    return open_log(path, append=True)
