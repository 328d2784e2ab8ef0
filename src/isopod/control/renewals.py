"""Which snapshots must be made anew, which apps may share one, and how far that is.

An image belongs to a runtime and an engine; after an upgrade, or when a disk has damaged its blob,
the app boots plainly until it has a new one. Only decisions here; `renewing` acts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from isopod.model.app import AppVersion
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import TenantName


@dataclass
class Renewals:
    """What was asked for, and the progress of the current round."""

    total: int = 0  # apps whose snapshot was found out of date
    done: int = 0  # of these, whether renewed or deployed anew meanwhile
    failed: int = 0  # of these
    current: dict[str, Digest] = field(default_factory=dict)  # runtime's name -> image digest
    apps: set[tuple[TenantName, AppName]] = field(default_factory=set)  # labels to be looked at
    images: set[Digest] = field(default_factory=set)  # whose blobs are in doubt
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def look_at(self, version: AppVersion, tenant: TenantName) -> None:
        """A version went live that may be old."""
        if is_outdated(version, self.current, ()):
            self.apps.add((tenant, version.app))
            self.asked.set()

    def doubt(self, images: Collection[Digest]) -> None:
        """Somebody could not read these."""
        if images:
            self.images.update(images)
            self.asked.set()


def is_outdated(
    version: AppVersion, current: Mapping[str, Digest], lost: Collection[Digest]
) -> bool:
    """Whether the version would start from a new image and not from the one it has. `current`:
    what images belong to now; a runtime that is not in it is not judged."""
    if not version.spec.startup.snapshot:
        return False
    taken = version.snapshot
    if taken is None:
        return True
    if not taken.image:  # plain boot: that verdict was of the app, and a deploy asks again
        return False
    belongs_to = current.get(version.spec.runtime, taken.runtime)
    return taken.runtime != belongs_to or taken.image in lost


@dataclass(frozen=True, slots=True)
class Kind:
    """Versions of one kind boot alike, but for their names; of one shape, also but for the values
    of their settings. Neither is ever shared between tenants."""

    tenant: TenantName
    shape: str
    env: str

    @staticmethod
    def of(version: AppVersion, tenant: TenantName, secret_names: Sequence[str] = ()) -> Kind:
        spec = version.spec.to_json()
        env = spec.pop("env")
        del spec["name"], spec["scaling"]
        build = version.build
        names = [sorted(env), sorted(secret_names)]
        shape = json.dumps([build.app_tree, build.site_tree, names, spec], sort_keys=True)
        return Kind(tenant, shape, json.dumps(env, sort_keys=True))


class Ready:
    """Snapshots that are up to date, by who may have them."""

    def __init__(self) -> None:
        self._by_kind: dict[Kind, Snapshot] = {}
        self._by_shape: dict[tuple[TenantName, str], Snapshot] = {}

    def add(self, kind: Kind, snapshot: Snapshot) -> None:
        self._by_kind[kind] = snapshot
        # Plain boot may be due to a value; a private image holds some.
        if snapshot.image and not snapshot.private:
            self._by_shape[kind.tenant, kind.shape] = snapshot

    def find(self, kind: Kind) -> Snapshot | None:
        return self._by_kind.get(kind) or self._by_shape.get((kind.tenant, kind.shape))
