"""The collaborators of the use cases, put together once by the composition root."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from isopod.blobs.store import BlobStore
from isopod.control.builds import Builder
from isopod.control.key_rotation import finish_rotation
from isopod.control.publishing import PublishedRoutes
from isopod.control.refusals import Refusals
from isopod.control.renewals import Renewals
from isopod.control.runtimes import Catalog
from isopod.control.turns import Seats, Turns
from isopod.control.under_way import UnderWay
from isopod.control.volume_sizes import VolumeSizes
from isopod.control.workers import Workers
from isopod.errors import BlobCorrupt, BlobMissing, DataDirUnusable, DeployInProgress
from isopod.model.app import AppVersion
from isopod.model.ids import AppName, Digest
from isopod.model.route import Route
from isopod.model.secret import bound_to
from isopod.model.tenant import TenantName, name_of_label
from isopod.model.volume import MountedVolume
from isopod.sealing import SealingKey
from isopod.settings import NodeSettings
from isopod.state.database import State, open_state
from isopod.state.volumes import Volumes
from isopod.volumes.places import Places

_UPLOADS = 4  # of one tenant at once; each may hold 200 MiB of disk
_FOLLOWERS = 16  # of one tenant; each polls a file, and holds a connection
_LOG_READERS = 8  # of one tenant; each holds what it has not read yet of a log
_WAITING = 200  # of one tenant; each holds a connection
_WHOLE_FOR_S = 60.0  # a blob that was hashed is not hashed again for so long


@dataclass(frozen=True)
class Node:
    """Everything a use case may need. One per control process."""

    settings: NodeSettings
    state: State
    blobs: BlobStore
    routes: PublishedRoutes
    places: Places  # of volumes
    volume_sizes: VolumeSizes
    workers: Workers
    builder: Builder
    sealing: SealingKey
    catalog: Catalog
    builds: Turns
    uploads: Turns
    archives: Seats  # of volumes, on the disk until their reader has them
    followers: Seats
    log_readers: Seats
    clock: Callable[[], float] = time.time  # seconds since the epoch
    deploying: set[str] = field(default_factory=set)  # apps (or folders) of tenants
    copying: set[str] = field(default_factory=set)  # volumes of tenants
    building: dict[Digest, asyncio.Event] = field(default_factory=dict)  # set when it ended
    whole: dict[Digest, tuple[float, int, int]] = field(default_factory=dict)  # see sound_lately
    learning: dict[AppName, float] = field(default_factory=dict)  # label -> until when
    renewals: Renewals = field(default_factory=Renewals)
    jobs: UnderWay = field(default_factory=UnderWay)
    refusals: Refusals = field(default_factory=Refusals)
    # Held by who brings a live version from state to the routes: the later state is written later.
    publishing: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)  # endless answers end

    def open_secrets(
        self, tenant: TenantName, app: str, sealed: Mapping[str, str]
    ) -> dict[str, str]:
        """The values, by name: for a builder. SecretsUnreadable."""
        return {
            name: self.sealing.open(text, bound_to=bound_to(tenant, app, name))
            for name, text in sealed.items()
        }

    def learns_until(self, label: AppName) -> float:
        """0: it does not."""
        until = self.learning.get(label, 0.0)
        return until if until > self.clock() else 0.0

    @contextmanager
    def one_deploy(self, key: str, message: str) -> Iterator[None]:
        """At most one deploy per key at a time; the other is told."""
        if key in self.deploying:
            raise DeployInProgress(message)
        self.deploying.add(key)
        try:
            yield
        finally:
            self.deploying.discard(key)

    @contextmanager
    def one_build(self, key: Digest) -> Iterator[None]:
        """While this lasts, whoever needs the same can wait for `building[key]`."""
        ended = self.building[key] = asyncio.Event()
        try:
            yield
        finally:
            ended.set()
            if self.building.get(key) is ended:
                del self.building[key]


def open_node(settings: NodeSettings) -> Node:
    """Open (and so check and migrate) everything under the data directory, and tidy it.

    DataDirUnusable when there are blobs and no state: that is a restore that is not finished.
    Half uploads of an earlier control process are removed, and routes.db is made equal to
    state: after a crash nothing half remains.
    """
    for folder in (
        settings.blobs_dir,
        settings.trees_dir,
        settings.logs_dir,
        settings.run_dir,
        settings.volumes_dir,
        settings.apart_volumes_dir,
    ):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(settings.uploads_dir, ignore_errors=True)
    settings.uploads_dir.mkdir(mode=0o700)
    _refuse_lost_state(settings)
    state = open_state(settings.state_path)
    state.node.forget_unborn()
    finish_rotation(settings.sealing_key_path, state)  # before the routes hold what it changes
    routes = PublishedRoutes(settings)
    secrets = state.node.secrets()
    live = (
        route_of(
            version,
            tenant,
            secrets.get((tenant, AppName(name_of_label(version.app))), {}),
            state.of(tenant).volumes,
        )
        for tenant, version in state.node.live()
    )
    routes.replace_all(live, state.node.tenants.all())
    places = Places(settings.volumes_dir, settings.apart_volumes_dir)
    return Node(
        settings=settings,
        state=state,
        blobs=BlobStore(settings.blobs_dir),
        routes=routes,
        places=places,
        volume_sizes=VolumeSizes(places),
        workers=Workers(settings.run_dir, shared=settings.workers),
        builder=Builder(settings),
        sealing=SealingKey.at(settings.sealing_key_path),
        catalog=Catalog(settings.cache_dir),
        # One more than a tenant may have: somebody else's build always begins.
        builds=Turns(
            at_once=settings.workers + 1,
            per_tenant=settings.workers,
            waiting=_WAITING,
            what="builds",
        ),
        # Others' uploads may be as slow as they like: only one's own are waited for.
        uploads=Turns(at_once=2**20, per_tenant=_UPLOADS, waiting=_WAITING, what="uploads"),
        archives=Seats(at_once=16 * _UPLOADS, per_key=_UPLOADS, what="archives of volumes"),
        followers=Seats(at_once=16 * _FOLLOWERS, per_key=_FOLLOWERS, what="followed logs"),
        log_readers=Seats(at_once=8 * _LOG_READERS, per_key=_LOG_READERS, what="reads of logs"),
    )


def _refuse_lost_state(settings: NodeSettings) -> None:
    """An empty state would serve nothing and answer as if all were well."""
    path = settings.state_path
    log = path.with_name(f"{path.name}-wal")
    written = any(one.exists() and one.stat().st_size for one in (path, log))
    if (path.exists() and written) or settings.new_state:
        return
    if any(BlobStore(settings.blobs_dir).digests()):
        raise DataDirUnusable(
            f"{str(settings.blobs_dir)!r} holds blobs, and {str(path)!r} is missing or empty",
            hint="restore state.db from a backup; ISOPOD_NEW_STATE=true starts without any app",
        )


def sound(node: Node, *digests: Digest) -> bool:
    """Whether the blobs are there and whole. Blocks: it hashes them.

    Asked before anything is taken again: deploying once more must heal what a disk damaged.
    """
    try:
        for digest in digests:
            node.blobs.open_verified(digest)
    except (BlobMissing, BlobCorrupt):
        for digest in digests:
            node.whole.pop(digest, None)
        return False
    return True


def sound_lately(node: Node, *digests: Digest) -> bool:
    """As `sound`, but what was found whole within the last minute and has the size and time of
    change that it had then is not hashed again: ten thousand deploys of one package ask often."""
    for digest in digests:
        try:
            now = node.blobs.path(digest).stat()
        except OSError:
            return False
        seen = node.whole.get(digest)
        state = (now.st_mtime_ns, now.st_size)
        if seen and seen[1:] == state and time.monotonic() - seen[0] < _WHOLE_FOR_S:
            continue
        if not sound(node, digest):
            return False
        node.whole[digest] = (time.monotonic(), *state)
    return True


def fitting(version: AppVersion, secrets: Mapping[str, str]) -> AppVersion:
    """Without its snapshot when that was taken while the app had others than these: an app may have
    seen at its start which there were. The values do not matter, no image holds them."""
    taken = version.snapshot
    if taken is None or taken.verdict == "unneeded" or not version.spec.startup.snapshot:
        return version
    if taken.secrets == tuple(sorted(secrets)):
        return version
    return replace(version, snapshot=None)


def route_of(
    version: AppVersion,
    tenant: TenantName,
    secrets: Mapping[str, str],
    volumes: Volumes,
    *,
    learns_until: float = 0.0,
) -> Route:
    """What workers need to know of a live version. `secrets`: its app's, sealed. `volumes`: its
    tenant's."""
    mounts = version.spec.volumes
    sizes = volumes.sizes() if mounts else {}
    version = fitting(version, secrets)
    return Route(
        name=version.app,
        version=version.number,
        digest=version.digest,
        app_tree=version.build.app_tree,
        site_tree=version.build.site_tree,
        spec=version.spec,
        snapshot=version.snapshot,
        tenant=tenant,
        secrets=dict(secrets),
        learns_until=learns_until,
        volumes=tuple(
            MountedVolume(one.name, one.mount, sizes[one.name])
            for one in mounts
            if one.name in sizes
        ),
    )
