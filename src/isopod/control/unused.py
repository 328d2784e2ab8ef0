"""Since when each blob is unused, across restarts of the node.

A look at state that finds a blob unused may be a look at the wrong state: a restore that is not
finished, a folder that is not mounted. So nothing is removed at first sight, and what is noted
holds for the state it was found in alone. Losing the file costs time only: all of them wait anew.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import orjson

from isopod.errors import disk_full_is_clear
from isopod.model.ids import Digest


class Unused:
    """Used by one thread at a time. `state` is that state's name."""

    def __init__(self, path: Path, *, state: str) -> None:
        self._path, self._state = path, state

    def look(self, found: Collection[Digest], *, now: float) -> dict[Digest, float]:
        """Note that these are unused now, and no others. Since when, of those that every look
        before found unused too."""
        known = self._read()
        # A clock that was set back must not make a blob older than it is.
        since = {digest: min(known.get(digest, now), now) for digest in found}
        if since != known:
            temporary = self._path.with_name(f".{self._path.name}")
            with disk_full_is_clear(str(self._path)):
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(fd, "wb") as file:
                    plain = {str(digest): at for digest, at in since.items()}
                    file.write(orjson.dumps({"state": self._state, "since": plain}))
                temporary.rename(self._path)
        return {digest: at for digest, at in since.items() if digest in known}

    def _read(self) -> dict[Digest, float]:
        """Empty where there is none, or it is damaged, or of another state."""
        try:
            body = orjson.loads(self._path.read_bytes())
            if body["state"] != self._state:
                return {}
            return {Digest(digest): float(at) for digest, at in body["since"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
