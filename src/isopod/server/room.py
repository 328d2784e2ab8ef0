"""How much a worker may hold by the limit of open files."""

from __future__ import annotations

import resource

_MAX_WEBSOCKETS = 8192


def max_websockets() -> int:
    """How many of them the limit of open files allows: each has two, a third of all together."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MAX_WEBSOCKETS, files // 6)


def max_instances() -> int:
    """How many instances it allows, with a part of it for connections. An instance has nine: its
    folders, its output, its app's log."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (files - 2 * max_websockets() - min(2048, files // 4)) // 10)
