"""Deploying: from a package to a version that serves.

    same input as an earlier version? -> that version becomes live, nothing is built
    same but for the app's name? -> a new version with the same build and snapshot
      (both only among the tenant's own)
    else builder (reusing an earlier build of the package) -> new immutable version
    a module of the app's own is compiled for the workers
    state (one transaction) -> routes.db -> workers look -> acknowledged

Until the transaction commits, the previous version serves; a crash before it leaves only blobs
that nothing names. A crash after it is repaired at the next start, from state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from isopod.control.amounts import check_apps, check_egress, check_storage, check_tenant
from isopod.control.audit import audited, entry
from isopod.control.build_output import built_apart, forget_shared_copies
from isopod.control.builds import Built
from isopod.control.deploy_request import DeployRequest
from isopod.control.log_files import log_paths
from isopod.control.module_making import make_module
from isopod.control.node import Node, fitting, sound
from isopod.control.post_deploy import run_post_deploy
from isopod.control.switching import follow, hold, make_live, to_the_end
from isopod.control.timetable import set_live
from isopod.control.twins import blobs_of, find_twin, is_sound
from isopod.errors import (
    BuildFailed,
    NameTaken,
    NotFound,
    SnapshotUnsound,
)
from isopod.model.app import AppVersion, version_digest
from isopod.model.build import BuildJob, Step
from isopod.model.capability import CapabilityDiff, check_not_more, compare
from isopod.model.ids import AppName, Digest
from isopod.model.principal import Principal
from isopod.state.apps import App
from isopod.state.handles import Handles, TenantHandles
from isopod.state.versions import MadeFrom


@dataclass(frozen=True, slots=True)
class Deployed:
    """The acknowledged end of a deploy."""

    app: App
    version: AppVersion
    unchanged: bool  # it was live already
    built: bool
    capabilities: CapabilityDiff  # to the version that was live


async def deploy(
    who: Principal, request: DeployRequest, *, node: Node
) -> AsyncGenerator[Step | Deployed]:
    """Steps as they happen, then `Deployed`. Closing the iterator before that gives it up.

    Raises what the builder found, NameTaken, DeployInProgress, BuildFailed, SnapshotUnsound,
    QuotaExceeded; the version that was live serves on after each of them.
    """
    target = request.name or request.folder_name
    async with audited(who, "app.deploy", target, node=node):
        who.need("deploy")
        async with aclosing(_deploy(who, request, node=node)) as items:
            async for item in items:
                yield item


async def _deploy(
    who: Principal, request: DeployRequest, *, node: Node
) -> AsyncGenerator[Step | Deployed]:
    request.check()
    mine = node.state.of(who.tenant)
    # Who did not upload it has not shown that it knows more of the package than its digest.
    # Touched: it stays at least until this deploy has ended.
    if not (
        await asyncio.to_thread(mine.packages.has, request.package)
        and node.blobs.touch(request.package, now=node.clock())
    ):
        raise NotFound(
            f"package {request.package.short!r} is not on this node", hint="upload it first"
        )
    with ExitStack() as held:
        if request.name:
            hold(held, node, who.tenant, request.name)
        elif request.source:
            message = f"a deploy of the folder {_folder(request.source)!r} is under way"
            held.enter_context(node.one_deploy(f"{who.tenant} source {request.source}", message))
        else:
            # Nobody to be kept apart from, but who renews snapshots has to see it.
            held.enter_context(node.one_deploy(f"{who.tenant} unnamed {id(held)}", ""))
        runtimes = await asyncio.to_thread(node.catalog.digest)
        sealed = await asyncio.to_thread(_sealed, request, mine)
        made_from = request.made_from(runtimes, who.tenant, sorted(sealed))
        known, unsound = await asyncio.to_thread(_known, request, made_from, mine, node)
        node.renewals.doubt(unsound)
        if known is not None:
            app, version = known
            if not request.name:
                hold(held, node, who.tenant, app.name)
            if version.number != app.live_version:
                async with aclosing(
                    make_module(who.tenant, version.spec, version.build, node=node)
                ) as steps:
                    async for step in steps:
                        yield step
            if version.spec.post_deploy and version.number != app.live_version:
                await asyncio.to_thread(_check_known, app, version, request, mine)
                async with aclosing(run_post_deploy(who, app, version, node=node)) as steps:
                    async for step in steps:
                        yield step
            yield await _publish_known(who, app, version, request, held=held, node=node)
            return
        built = await asyncio.to_thread(find_twin, request, made_from, mine=mine, node=node)
        if built is None and request.name and made_from.twin in node.building:
            yield Step("build", "start", "Another deploy is building this package")
            await node.building[made_from.twin].wait()
            built = await asyncio.to_thread(find_twin, request, made_from, mine=mine, node=node)
        anew = built is None
        if anew:
            held.enter_context(node.one_build(made_from.twin))
            if node.builds.must_wait(who.tenant):
                yield Step("build", "start", "Other builds are before this one")
            job = await asyncio.to_thread(_job, who, request, node, runtimes, sealed)
            async with (
                node.builds.turn(who.tenant),
                built_apart(job, who.tenant, request.likely_name, node=node) as job,
                aclosing(node.builder.build(job)) as lines,
            ):
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
            hold(held, node, who.tenant, built.spec.name)
        async with aclosing(make_module(who.tenant, built.spec, built.build, node=node)) as steps:
            async for step in steps:
                yield step
        if built.spec.post_deploy:
            async with aclosing(_before_live(who, built, request, node=node)) as steps:
                async for step in steps:
                    yield step
        began = time.monotonic()
        yield Step("publish", "start", "Publishing")
        work = _publish(
            who,
            built,
            request,
            node=node,
            made_from=made_from,
            runtimes=runtimes,
            anew=anew,
        )
        done = await to_the_end(work, held=held)
        if anew and built.spec.isolation.cordon == "tenant":  # who built it did not know
            await asyncio.to_thread(forget_shared_copies, built, node=node)
        text = f"Version {done.version.number} is live" + (", as built before" * (not anew))
        yield Step("publish", "done", text, time.monotonic() - began)
        yield done


def _known(
    request: DeployRequest, made_from: MadeFrom, mine: TenantHandles, node: Node
) -> tuple[tuple[App, AppVersion] | None, list[Digest]]:
    """The version that an equal request made, if it can serve as it did; else what is damaged."""
    known = mine.versions.by_input(made_from.input)
    if known is None or (request.strict and not is_sound(known.snapshot)):
        return None, []
    app = mine.apps.labelled(known.app)
    if app is None:
        return None, []
    if sound(node, *blobs_of(known)):
        return (app, known), []
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


def _sealed(request: DeployRequest, mine: TenantHandles) -> dict[str, str]:
    return mine.secrets.sealed(request.likely_name) if request.likely_name else {}


def _job(
    who: Principal,
    request: DeployRequest,
    node: Node,
    runtimes: str,
    sealed: Mapping[str, str],
) -> BuildJob:
    settings, mine = node.settings, node.state.of(who.tenant)
    earlier = mine.builds.of_package(request.package, runtimes)
    if earlier:  # maybe no version has them: they stay at least until this deploy has ended
        for tree in (earlier.app_tree, earlier.site_tree):
            node.blobs.touch(tree, now=node.clock())
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
        tenant=who.tenant,
        secrets=node.open_secrets(who.tenant, request.likely_name or "", sealed),
        secrets_of=request.likely_name or "",
        live=None if request.allow_new else _live_spec(mine, request.likely_name),
    )


def _live_spec(mine: TenantHandles, name: AppName | None) -> dict[str, Any] | None:
    app = mine.apps.get(name) if name else None
    live = mine.versions.get(app.label, app.live_version) if app else None
    return live.spec.to_json() if live else None


async def _publish_known(
    who: Principal,
    app: App,
    known: AppVersion,
    request: DeployRequest,
    *,
    held: ExitStack,
    node: Node,
) -> Deployed:
    _check_name(app, request, app.name)
    if app.live_version == known.number:
        if app.source != request.source:
            await asyncio.to_thread(_note_source, who, app, request.source, node)
        return Deployed(app, known, unchanged=True, built=False, capabilities=CapabilityDiff())
    mine = node.state.of(who.tenant)
    diff = await asyncio.to_thread(_check_known, app, known, request, mine)
    work = make_live(who, "app.deploy", app, known, source=request.source, node=node)
    await to_the_end(work, held=held)
    return Deployed(app, known, unchanged=False, built=False, capabilities=diff)


def _check_known(
    app: App, known: AppVersion, request: DeployRequest, mine: TenantHandles
) -> CapabilityDiff:
    """What it may do that the live version may not."""
    live = mine.versions.get(app.label, app.live_version)
    if live and not request.allow_new:
        check_not_more(replace(known.spec, name=app.name), live.spec)
    return compare(known.spec, live.spec if live else None)


async def _before_live(
    who: Principal, built: Built, request: DeployRequest, *, node: Node
) -> AsyncGenerator[Step]:
    """Run the commands of a version that there is not yet. An app that there is not either is
    made first, without a live version, and is gone again when a command fails."""
    app, version = await asyncio.to_thread(_reserve, who, built, request, node)
    passed = False
    try:
        async with aclosing(run_post_deploy(who, app, version, node=node)) as steps:
            async for step in steps:
                yield step
        passed = True
    finally:
        if not passed and not app.live_version:
            await asyncio.shield(asyncio.to_thread(_forget, who, app, node))


def _reserve(
    who: Principal, built: Built, request: DeployRequest, node: Node
) -> tuple[App, AppVersion]:
    now, build = node.clock(), built.build
    with node.state.transaction() as t:
        mine = t.of(who.tenant)
        before, _ = _admitted(who, built, request, t)
        source = request.source if before is None else before.source
        app = mine.apps.save(built.spec.name, source=source, now=now)
        number = mine.versions.next_number(app.label)
    if before is None:  # what an app of that label wrote once is not this one's
        for path in log_paths(node.settings, who.tenant, app.label):
            path.unlink(missing_ok=True)
    spec = replace(built.spec, name=app.label)
    digest = version_digest(package=request.package, build_key=build.key, spec=spec)
    return app, AppVersion(app.label, number, digest, request.package, build, spec, now)


def _forget(who: Principal, app: App, node: Node) -> None:
    with node.state.transaction() as t:
        mine = t.of(who.tenant)
        there = mine.apps.get(app.name)
        if there is not None and not there.live_version:
            mine.apps.delete(app.name, now=node.clock())


def _admitted(
    who: Principal, built: Built, request: DeployRequest, t: Handles
) -> tuple[App | None, AppVersion | None]:
    """The app and its live version before this deploy; raises what forbids it."""
    quota, mine, name = check_tenant(who, t.node.tenants), t.of(who.tenant), built.spec.name
    before = mine.apps.get(name)
    _check_name(before, request, name)
    check_egress(replace(built.spec, name=name), who.tenant, t.node.tenants)
    live = mine.versions.get(before.label, before.live_version) if before else None
    if before is None:
        check_apps(quota, mine)
    if live and not request.allow_new:
        check_not_more(replace(built.spec, name=name), live.spec)
    return before, live


def _note_source(who: Principal, app: App, source: str, node: Node) -> None:
    now = node.clock()
    with node.state.transaction() as t:
        check_tenant(who, t.node.tenants)
        mine = t.of(who.tenant)
        mine.apps.save(app.name, source=source, now=now)
        mine.audit.add(
            entry(who, "app.deploy", app.name, now, details={"version": app.live_version})
        )


async def _publish(
    who: Principal,
    built: Built,
    request: DeployRequest,
    *,
    node: Node,
    made_from: MadeFrom,
    runtimes: str,
    anew: bool,
) -> Deployed:
    name, build = built.spec.name, built.build

    def commit() -> tuple[App, AppVersion, int, CapabilityDiff]:
        now = node.clock()
        if built.spec.isolation.cordon == "tenant":
            with node.publishing:
                node.routes.room_for(who.tenant)
        with node.state.transaction() as t:
            quota, mine = check_tenant(who, t.node.tenants), t.of(who.tenant)
            before, live = _admitted(who, built, request, t)
            app = mine.apps.save(name, source=request.source, now=now)
            # From here on the app is known by its label, which only now is certain.
            spec = replace(built.spec, name=app.label)
            digest = version_digest(package=request.package, build_key=build.key, spec=spec)
            earlier = mine.versions.by_digest(app.label, digest)
            version = AppVersion(
                app=app.label,
                number=earlier.number if earlier else mine.versions.next_number(app.label),
                digest=digest,
                package=request.package,
                build=build,
                spec=spec,
                created_at=earlier.created_at if earlier else now,
                snapshot=built.snapshot,
            )
            version = fitting(version, mine.secrets.sealed(name))
            check_storage(quota, version, mine=mine, blobs=node.blobs)
            mine.volumes.mount(app.label, [one.name for one in spec.volumes])
            mine.builds.save(build, package=request.package, runtimes=runtimes, now=now)
            if earlier:
                mine.versions.replace_build(version, made_from=made_from)
            else:
                mine.versions.add(version, made_from=made_from)
            # In here nobody removes a blob: what is there now stays, the version needs it.
            for needed in (version.package, build.app_tree, build.site_tree):
                node.blobs.size(needed)
            set_live(name, version, mine=mine, now=now)
            mine.audit.add(entry(who, "app.deploy", name, now, details={"version": version.number}))
        if before is None:  # what an app of that label wrote once is not this one's
            for path in log_paths(node.settings, who.tenant, app.label):
                path.unlink(missing_ok=True)
        diff = compare(spec, live.spec if live else None)
        return app, version, before.live_version if before else 0, diff

    app, version, before, diff = await asyncio.to_thread(commit)
    if not before:  # the label may have been another tenant's, whose app's hosts are not to be told
        await node.workers.forget_reached(app.label)
    await follow(who.tenant, app, version, before=before, node=node)
    return Deployed(app, version, unchanged=before == version.number, built=anew, capabilities=diff)


def _check_name(app: App | None, request: DeployRequest, name: AppName) -> None:
    """A name nobody chose must not replace an app that came from elsewhere."""
    if (
        request.name
        or app is None
        or not app.live_version
        or (app.source == request.source and request.source)
    ):
        return
    came_from = f" (from {_folder(app.source)!r})" if app.source else ""
    raise NameTaken(
        f"app name {name!r} is taken by another app{came_from}",
        hint=f"`--name X` chooses another name; `--name {name}` replaces that app",
        details={"name": name},
    )


def _folder(source: str) -> str:
    return source.partition(":")[2] or source
