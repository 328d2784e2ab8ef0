"""Deploying: from a package to a version that serves.

    same input as an earlier version? -> that version becomes live, nothing is built
    same but for the app's name? -> a new version with the same build and snapshot
    else builder (reusing an earlier build of the package) -> new immutable version
    state (one transaction) -> routes.db -> workers look -> acknowledged

Until the transaction commits, the previous version serves; a crash before it leaves only blobs
that nothing names. A crash after it is repaired at the next start, from state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass

from isopod.control.builds import Built
from isopod.control.deploy_request import DeployRequest
from isopod.control.node import Node, route_of, sound
from isopod.control.twins import blobs_of, find_twin, is_sound
from isopod.errors import BuildFailed, IsopodError, NameTaken, NotFound, SnapshotUnsound
from isopod.model.app import AppVersion, version_digest
from isopod.model.build import BuildJob, Step
from isopod.model.ids import AppName, Digest
from isopod.model.principal import Principal
from isopod.state.apps import App
from isopod.state.versions import MadeFrom


@dataclass(frozen=True, slots=True)
class Deployed:
    """The acknowledged end of a deploy."""

    version: AppVersion
    unchanged: bool  # it was live already
    built: bool


async def deploy(
    _who: Principal, request: DeployRequest, *, node: Node
) -> AsyncGenerator[Step | Deployed]:
    """Steps as they happen, then `Deployed`. Closing the iterator before that gives it up.

    Raises what the builder found, NameTaken, DeployInProgress, BuildFailed, SnapshotUnsound; the
    version that was live serves on after each of them.
    """
    request.check()
    if not node.blobs.has(request.package):
        raise NotFound(
            f"package {request.package.short!r} is not on this node", hint="upload it first"
        )
    with ExitStack() as held:
        if request.name:
            _hold(held, node, request.name)
        elif request.source:
            message = f"a deploy of the folder {_folder(request.source)!r} is under way"
            held.enter_context(node.one_deploy(f"source {request.source}", message))
        runtimes = await asyncio.to_thread(node.catalog.digest)
        made_from = request.made_from(runtimes)
        known, unsound = await asyncio.to_thread(_known, request, made_from, node)
        node.renewals.doubt(unsound)
        if known is not None:
            if not request.name:
                _hold(held, node, known.app)
            yield await _publish_known(known, request, node=node)
            return
        built = await asyncio.to_thread(find_twin, request, made_from, node=node)
        if built is None and request.name and made_from.twin in node.building:
            yield Step("build", "start", "Another deploy is building this package")
            await node.building[made_from.twin].wait()
            built = await asyncio.to_thread(find_twin, request, made_from, node=node)
        anew = built is None
        if anew:
            held.enter_context(node.one_build(made_from.twin))
            job = await asyncio.to_thread(_job, request, node, runtimes)
            async with aclosing(node.builder.build(job)) as lines:
                async for line in lines:
                    if isinstance(line, Step):
                        yield line
                    else:
                        built = line
        if built is None:
            raise BuildFailed("the builder gave no result")
        if request.strict and not is_sound(built.snapshot):
            raise _unsound(built)
        if not request.name:
            _hold(held, node, built.spec.name)
        began = time.monotonic()
        yield Step("publish", "start", "Publishing")
        # Not cut by a caller that hangs up: from here it is done or it is not.
        done = await asyncio.shield(
            _publish(built, request, node=node, made_from=made_from, runtimes=runtimes, anew=anew)
        )
        text = f"Version {done.version.number} is live" + (", as built before" * (not anew))
        yield Step("publish", "done", text, time.monotonic() - began)
        yield done


def _known(
    request: DeployRequest, made_from: MadeFrom, node: Node
) -> tuple[AppVersion | None, list[Digest]]:
    """The version that an equal request made, if it can serve as it did; else what is damaged."""
    known = node.state.versions.by_input(made_from.input)
    if known is None or (request.strict and not is_sound(known.snapshot)):
        return None, []
    if sound(node, *blobs_of(known)):
        return known, []
    return None, blobs_of(known)  # other apps may share its image


def _unsound(built: Built) -> SnapshotUnsound:
    snapshot = built.snapshot
    why, findings = "none was taken", []
    if snapshot is not None:
        verdict = "plain boot" if snapshot.verdict == "plain" else snapshot.verdict
        why = f"{verdict}, {snapshot.why}" if snapshot.why else verdict
        findings = [asdict(finding) for finding in snapshot.findings]
    return SnapshotUnsound(
        f"app {built.spec.name!r} has no sound snapshot: {why}",
        details={"verdict": snapshot.verdict if snapshot else "", "findings": findings},
    )


def _job(request: DeployRequest, node: Node, runtimes: str) -> BuildJob:
    settings = node.settings
    earlier = node.state.builds.of_package(request.package, runtimes)
    if earlier and not sound(node, earlier.app_tree, earlier.site_tree):
        earlier = None
    return BuildJob(
        package=request.package,
        app_name=request.name or "",
        folder_name=request.folder_name,
        env=request.env,
        blobs_dir=str(settings.blobs_dir),
        trees_dir=str(settings.trees_dir),
        images_dir=str(settings.images_dir),
        image_cache_mib=settings.image_cache_mib,
        cache_dir=str(settings.cache_dir),
        timeout_s=settings.build_timeout_s,
        reuse=earlier.to_json() if earlier else None,
    )


async def _publish_known(known: AppVersion, request: DeployRequest, *, node: Node) -> Deployed:
    app = await asyncio.to_thread(node.state.apps.get, known.app)
    _check_name(app, request, known.app)
    if app is not None and app.live_version == known.number:
        if app.source != request.source:
            await asyncio.to_thread(
                node.state.apps.save, known.app, source=request.source, now=node.clock()
            )
        return Deployed(known, unchanged=True, built=False)
    await asyncio.shield(make_live(known, source=request.source, node=node))
    return Deployed(known, unchanged=False, built=False)


async def _publish(
    built: Built,
    request: DeployRequest,
    *,
    node: Node,
    made_from: MadeFrom,
    runtimes: str,
    anew: bool,
) -> Deployed:
    name, build = built.spec.name, built.build
    digest = version_digest(package=request.package, build_key=build.key, spec=built.spec)

    def commit() -> tuple[AppVersion, int]:
        now = node.clock()
        with node.state.transaction() as t:
            app = t.apps.get(name)
            _check_name(app, request, name)
            earlier = t.versions.by_digest(name, digest)
            version = AppVersion(
                app=name,
                number=earlier.number if earlier else t.versions.next_number(name),
                digest=digest,
                package=request.package,
                build=build,
                spec=built.spec,
                created_at=earlier.created_at if earlier else now,
                snapshot=built.snapshot,
            )
            t.builds.save(build, package=request.package, runtimes=runtimes, now=now)
            t.apps.save(name, source=request.source, now=now)
            if earlier:
                t.versions.replace_build(version, made_from=made_from)
            else:
                t.versions.add(version, made_from=made_from)
            t.apps.set_live(name, version.number)
        return version, app.live_version if app else 0

    version, before = await asyncio.to_thread(commit)
    await _follow(version, before=before, node=node)
    return Deployed(version, unchanged=before == version.number, built=anew)


async def make_live(version: AppVersion, *, source: str | None, node: Node) -> None:
    """Let an existing version serve. `source` None: leave where the app came from."""

    def commit() -> int:
        with node.state.transaction() as t:
            app = t.apps.get(version.app)
            if source is not None:
                t.apps.save(version.app, source=source, now=node.clock())
            t.apps.set_live(version.app, version.number)
        return app.live_version if app else 0

    before = await asyncio.to_thread(commit)
    await _follow(version, before=before, node=node)


async def _follow(version: AppVersion, *, before: int, node: Node) -> None:
    """Routes and workers follow state; when routes cannot, state goes back."""
    try:
        await asyncio.to_thread(_put_route, version, node)
    except IsopodError:
        await asyncio.to_thread(_take_back, version, before, node)
        raise
    await node.workers.refresh(version.app)
    node.renewals.look_at(version)


def _put_route(version: AppVersion, node: Node) -> None:
    with node.publishing:
        # Read again: it may have got a new snapshot since.
        now = node.state.versions.get(version.app, version.number)
        node.routes.put(route_of(now or version))


def _take_back(version: AppVersion, before: int, node: Node) -> None:
    if before:
        node.state.apps.set_live(version.app, before)
    else:
        node.state.apps.delete(version.app)


def _hold(held: ExitStack, node: Node, name: AppName) -> None:
    message = f"another deploy of app {name!r} is under way"
    held.enter_context(node.one_deploy(name, message))


def _check_name(app: App | None, request: DeployRequest, name: AppName) -> None:
    """A name nobody chose must not replace an app that came from elsewhere."""
    if request.name or app is None or (app.source == request.source and request.source):
        return
    came_from = f" (from {_folder(app.source)!r})" if app.source else ""
    raise NameTaken(
        f"app name {name!r} is taken by another app{came_from}",
        hint=f"`--name X` chooses another name; `--name {name}` replaces that app",
        details={"name": name},
    )


def _folder(source: str) -> str:
    return source.partition(":")[2] or source
