"""Since when each blob is unused, across restarts of the node.

A look at state that finds a blob unused may be a look at the wrong state: a restore that is not
finished, a folder that is not mounted. So nothing is removed at first sight, and what is noted
holds for the state it was found in alone. Losing the file costs time only: all of them wait anew.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import orjson

from isopod.model.ids import Digest
from isopod.owned_file import write_owned


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
            plain = {str(digest): at for digest, at in since.items()}
            body = orjson.dumps({"state": self._state, "since": plain})
            write_owned(self._path, body, durable=False)
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
