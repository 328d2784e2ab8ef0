"""What a worker needs to know to serve one app: nothing else reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isopod.model.app import AppSpec
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import DEFAULT_TENANT, TenantName
from isopod.model.volume import MountedVolume


@dataclass(frozen=True, slots=True)
class Route:
    """The live version of an app, as its workers see it. `name` is the app's label (see
    `isopod.model.tenant`): what its host names begin with."""

    name: AppName
    version: int
    digest: Digest  # the version's
    app_tree: Digest
    site_tree: Digest
    spec: AppSpec
    snapshot: Snapshot | None = None
    tenant: TenantName = DEFAULT_TENANT
    # Name -> sealed value: a worker asks for them to be opened when an instance starts.
    secrets: Mapping[str, str] = field(default_factory=dict)
    # Seconds since the epoch: so long it may connect to what its tenant may, and learn.
    learns_until: float = 0.0
    volumes: tuple[MountedVolume, ...] = ()  # as the specification's, with their sizes

    def serves_as(self, other: Route) -> bool:
        """Whether instances of one may answer requests to the other: the same version with the
        same secrets. (A new snapshot changes only how the next one starts.)"""
        return (self.digest, self.version, self.secrets) == (
            other.digest,
            other.version,
            other.secrets,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "app_tree": self.app_tree,
            "site_tree": self.site_tree,
            "spec": self.spec.to_json(),
            "snapshot": self.snapshot.to_json() if self.snapshot else None,
            "tenant": self.tenant,
            **({"secrets": dict(self.secrets)} if self.secrets else {}),
            **({"learns_until": self.learns_until} if self.learns_until else {}),
            **({"volumes": [one.to_json() for one in self.volumes]} if self.volumes else {}),
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Route:
        return Route(
            name=AppName(body["name"]),
            version=int(body["version"]),
            digest=Digest(body["digest"]),
            app_tree=Digest(body["app_tree"]),
            site_tree=Digest(body["site_tree"]),
            spec=AppSpec.from_json(body["spec"]),
            snapshot=Snapshot.from_json(body["snapshot"]) if body.get("snapshot") else None,
            tenant=TenantName(body.get("tenant", DEFAULT_TENANT)),
            secrets=dict(body.get("secrets", {})),
            learns_until=float(body.get("learns_until", 0.0)),
            volumes=tuple(MountedVolume.from_json(one) for one in body.get("volumes", ())),
        )
