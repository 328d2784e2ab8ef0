"""Deploying under a new name what was built before: no builder runs.

A version of another app of the same tenant is taken over when the request for it differed in the
name alone and its image holds no random bytes that are its own. When it differed in values of
environment variables too, then only if it has an image that holds none of them: the app did not
look at them before its first request, so it starts with any.
"""

from __future__ import annotations

from dataclasses import replace

from isopod.control.builds import Built
from isopod.control.deploy_request import DeployRequest
from isopod.control.node import Node, sound_lately
from isopod.model.app import AppVersion
from isopod.model.ids import Digest
from isopod.model.snapshot import Snapshot
from isopod.state.apps import App
from isopod.state.handles import TenantHandles
from isopod.state.versions import MadeFrom


def find_twin(
    request: DeployRequest, made_from: MadeFrom, *, mine: TenantHandles, node: Node
) -> Built | None:
    """What a builder would make of `request`, if that is known. Needs the request's name: the
    one in the manifest is in the package, which only a builder reads."""
    if request.name is None:
        return None
    found = mine.versions.by_twin(made_from.twin)
    if not (
        found and _may_share(found, mine.apps.get(request.name)) and _usable(found, request, node)
    ):
        found = mine.versions.by_shape(made_from.shape)
        if not (found and _shared(found.snapshot) and _usable(found, request, node)):
            return None
    env = {**found.spec.env, **request.env}
    return Built(replace(found.spec, name=request.name, env=env), found.build, found.snapshot)


def is_sound(snapshot: Snapshot | None) -> bool:
    """What `strict` asks for."""
    return snapshot is not None and snapshot.verdict in ("sound", "unneeded")


def blobs_of(version: AppVersion) -> list[Digest]:
    """What must be there for the version to serve as it did."""
    build, snapshot = version.build, version.snapshot
    image = [snapshot.image] if snapshot and snapshot.image else []
    return [build.app_tree, build.site_tree, *image]


def _may_share(version: AppVersion, app: App | None) -> bool:
    """An image that holds random bytes is its app's alone, also among equal apps: a key that an app
    drew when it was imported would be a stranger's key too. (Equal settings are no secret.)"""
    findings = version.snapshot.findings if version.snapshot else ()
    own = app is not None and version.app == app.label
    return own or all(finding.kind != "entropy" for finding in findings)


def _shared(snapshot: Snapshot | None) -> bool:
    return snapshot is not None and bool(snapshot.image) and not snapshot.private


def _usable(version: AppVersion, request: DeployRequest, node: Node) -> bool:
    if request.strict and not is_sound(version.snapshot):
        return False  # built again: the verdict may be better today
    return sound_lately(node, *blobs_of(version))
