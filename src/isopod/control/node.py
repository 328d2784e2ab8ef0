"""The collaborators of the use cases, put together once by the composition root."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from isopod.blobs.store import BlobStore
from isopod.control.builds import Builder
from isopod.control.runtimes import Catalog
from isopod.control.workers import Workers
from isopod.errors import BlobCorrupt, BlobMissing, DeployInProgress
from isopod.model.app import AppVersion
from isopod.model.ids import Digest
from isopod.model.route import Route
from isopod.routes import RouteWriter
from isopod.settings import NodeSettings
from isopod.state.database import State, open_state


@dataclass(frozen=True)
class Node:
    """Everything a use case may need. One per control process."""

    settings: NodeSettings
    state: State
    blobs: BlobStore
    routes: RouteWriter
    workers: Workers
    builder: Builder
    catalog: Catalog
    clock: Callable[[], float] = time.time  # seconds since the epoch
    deploying: set[str] = field(default_factory=set)  # names (or folders) being deployed
    stopping: threading.Event = field(default_factory=threading.Event)  # endless answers end

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


def open_node(settings: NodeSettings) -> Node:
    """Open (and so check and migrate) everything under the data directory, and tidy it.

    Half uploads of an earlier control process are removed, and routes.db is made equal to
    state: after a crash nothing half remains.
    """
    for folder in (settings.blobs_dir, settings.trees_dir, settings.logs_dir, settings.run_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(settings.uploads_dir, ignore_errors=True)
    settings.uploads_dir.mkdir(mode=0o700)
    state = open_state(settings.state_path)
    routes = RouteWriter(settings.routes_path)
    routes.replace_all(route_of(version) for version in state.versions.live())
    return Node(
        settings=settings,
        state=state,
        blobs=BlobStore(settings.blobs_dir),
        routes=routes,
        workers=Workers(settings.run_dir),
        builder=Builder(settings),
        catalog=Catalog(settings.cache_dir),
    )


def sound(node: Node, *digests: Digest) -> bool:
    """Whether the blobs are there and whole. Blocks: it hashes them.

    Asked before anything is taken again: deploying once more must heal what a disk damaged.
    """
    try:
        for digest in digests:
            node.blobs.open_verified(digest)
    except (BlobMissing, BlobCorrupt):
        return False
    return True


def route_of(version: AppVersion) -> Route:
    """What workers need to know of a live version."""
    return Route(
        name=version.app,
        version=version.number,
        digest=version.digest,
        app_tree=version.build.app_tree,
        site_tree=version.build.site_tree,
        spec=version.spec,
    )
