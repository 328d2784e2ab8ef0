"""D/node.json: what a running node listens on, for the command line on the same machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

from isopod import __version__
from isopod.owned_file import write_owned
from isopod.settings import NodeSettings


def write_node_file(settings: NodeSettings) -> None:
    """At once whole: a reader sees the old file or the new one. `settings` has real ports."""
    body = {
        "gateway_port": settings.port,
        "control_port": settings.control_port,
        "pid": os.getpid(),
        "version": __version__,
        "host": settings.host,
        "control_host": settings.control_host,
        "domain": settings.domain,
    }
    text = json.dumps(body, indent=2) + "\n"
    write_owned(settings.node_path, text.encode(), durable=False)


def remove_node_file(path: Path) -> None:
    path.unlink(missing_ok=True)
