"""What state is read and changed through: no query without a tenant.

`of(tenant)` gives handles that see that tenant's rows and no others. What is about the whole node
(routes at start, snapshots made anew, finding the tenant of a token) is under `node`, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isopod.model.app import AppVersion
from isopod.model.ids import AppName
from isopod.model.tenant import TenantName
from isopod.state.apps import Apps, Connect, forget_unborn
from isopod.state.audit import Audit
from isopod.state.builds import Builds
from isopod.state.jobs import AnyJobs, Jobs
from isopod.state.members import Members
from isopod.state.packages import Packages
from isopod.state.secrets import Secrets, secrets_of_node
from isopod.state.storage import Storage
from isopod.state.tenants import Tenants
from isopod.state.tokens import AnyToken, Tokens
from isopod.state.versions import Versions, live_of_node
from isopod.state.volumes import Volumes, volume_sizes_of_node


@dataclass(frozen=True, slots=True)
class TenantHandles:
    """All that is one tenant's."""

    apps: Apps
    versions: Versions
    builds: Builds
    packages: Packages
    secrets: Secrets
    members: Members
    tokens: Tokens
    audit: Audit
    jobs: Jobs
    volumes: Volumes


class NodeHandles:
    """What is about every tenant: for the operator, and for the node's own work."""

    def __init__(self, reading: Connect, writing: Connect, path: Path) -> None:
        self._reading, self._writing, self._path = reading, writing, path
        self.tenants = Tenants(reading, writing)
        self.tokens = AnyToken(reading, writing)
        self.audit = Audit(None, reading, writing)
        self.storage = Storage(reading, writing, path)
        self.jobs = AnyJobs(reading, writing)

    def forget_unborn(self) -> None:
        """Apps whose first deploy was cut before anything of them was live."""
        forget_unborn(self._writing)

    def live(self) -> list[tuple[TenantName, AppVersion]]:
        """The live version of every app, by label."""
        return live_of_node(self._reading, self._path)

    def volume_sizes(self) -> list[tuple[TenantName, str, int]]:
        """(tenant, label, MiB) of what each app mounts; the label is "" for what none does."""
        return volume_sizes_of_node(self._reading)

    def secrets(self) -> dict[tuple[TenantName, AppName], dict[str, str]]:
        """The sealed secrets of every app that has some, by tenant and name."""
        return secrets_of_node(self._reading)


class Handles:
    """Over one transaction, or over one transaction per call."""

    def __init__(self, reading: Connect, writing: Connect, path: Path) -> None:
        self._reading, self._writing, self._path = reading, writing, path
        self.node = NodeHandles(reading, writing, path)

    def of(self, tenant: TenantName) -> TenantHandles:
        reading, writing = self._reading, self._writing
        return TenantHandles(
            apps=Apps(tenant, reading, writing),
            versions=Versions(tenant, reading, writing, self._path),
            builds=Builds(tenant, reading, writing),
            packages=Packages(tenant, reading, writing),
            secrets=Secrets(tenant, reading, writing),
            members=Members(tenant, reading, writing),
            tokens=Tokens(tenant, reading, writing),
            audit=Audit(tenant, reading, writing),
            jobs=Jobs(tenant, reading, writing),
            volumes=Volumes(tenant, reading, writing),
        )
