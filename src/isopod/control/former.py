"""Snapshots that versions had under earlier runtimes and engines: going back to one finds its
images still there, and nobody waits for plain boots again.

One file for each app, in a folder for each tenant: a label that another tenant gets one day must
not lead to this one's memory. It holds what `Snapshot` says, not the images, which stay among the
blobs. Losing it costs time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from isopod.errors import disk_full_is_clear
from isopod.model.app import AppVersion
from isopod.model.ids import Digest
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import TenantName
from isopod.owned_file import write_owned

_VERSIONS = 16  # of an app, the latest kept
_RUNTIMES = 2  # of a version: each is an image that stays on the disk


class FormerSnapshots:
    """Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, tenant: TenantName, version: AppVersion) -> None:
        """Note the image that `version` starts from, before it gets another. DiskFull."""
        taken = version.snapshot
        if taken is None or not taken.image:
            return
        path = self._path(tenant, version)
        known = _read(path)
        of_version = known.pop(version.digest, {})
        of_version.pop(taken.runtime, None)
        of_version[str(taken.runtime)] = taken.to_json()
        known[str(version.digest)] = dict(list(of_version.items())[-_RUNTIMES:])
        known = dict(list(known.items())[-_VERSIONS:])
        with disk_full_is_clear(str(path)):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_owned(path, orjson.dumps(known), durable=False)

    def find(self, tenant: TenantName, version: AppVersion, runtime: Digest) -> Snapshot | None:
        """What `version` had under `runtime`, if it had an image then."""
        found = _read(self._path(tenant, version)).get(version.digest, {}).get(runtime)
        if not isinstance(found, Mapping):
            return None
        with suppress(TypeError, KeyError, AttributeError):  # another isopod's words for it
            snapshot = Snapshot.from_json(found)
            if snapshot.image and snapshot.runtime == runtime:
                return snapshot
        return None

    def images(self, live: Iterable[tuple[TenantName, AppVersion]]) -> set[Digest]:
        """What these versions could go back to: blobs that must stay."""
        found: set[Digest] = set()
        for tenant, version in live:
            for runtime in _read(self._path(tenant, version)).get(version.digest, {}):
                snapshot = self.find(tenant, version, Digest(runtime))
                if snapshot is not None:
                    found.add(snapshot.image)
        return found

    def _path(self, tenant: TenantName, version: AppVersion) -> Path:
        return self._folder / tenant / f"{version.app}.json"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Empty where there is none, or where it was damaged."""
    try:
        body = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(body, Mapping) or not all(isinstance(one, dict) for one in body.values()):
        return {}
    return dict(body)
