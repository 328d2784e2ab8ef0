"""D/node.json: what a running node listens on, for the command line on the same machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

from isopod import __version__
from isopod.errors import disk_full_is_clear
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
    path = settings.node_path
    temporary = path.with_name(".node.json.new")
    with disk_full_is_clear(str(path.parent)):
        temporary.write_text(json.dumps(body, indent=2) + "\n")
        temporary.chmod(0o600)
        temporary.replace(path)


def remove_node_file(path: Path) -> None:
    path.unlink(missing_ok=True)
