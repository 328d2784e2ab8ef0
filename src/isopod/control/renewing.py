"""Making snapshots anew in the background, one after the other, while plain boots serve.

At the start of control every live version is looked at; later, those that went live with an old
image, and those whose image a worker could not have. Each new snapshot is one transaction, so a
kill loses the one that was being made, and the next start goes on. It gives way: no build starts
while a deploy runs (for a minute at most), and a version that was deployed anew meanwhile keeps
what it has. What a version had under another engine is kept: whoever goes back to that one has its
images at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from isopod.control.build_output import built_apart
from isopod.control.builds import Built
from isopod.control.former import FormerSnapshots
from isopod.control.log_writing import say
from isopod.control.node import Node, fitting, route_of, sound
from isopod.control.renewals import Kind, Ready, is_outdated
from isopod.errors import BuildFailed, IsopodError
from isopod.model.app import AppVersion
from isopod.model.build import BuildJob
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot
from isopod.model.tenant import TenantName, name_of_label

_log = logging.getLogger("isopod.snapshots")
_ASK_WORKERS_S = 3.0
_QUIET_S = 0.2  # between two looks at whether a deploy runs
_WAIT_AT_MOST_S = 60.0  # for deploys, before each snapshot
_SAY_EVERY_S = 10.0
_AT_ONCE = 200  # apps that get one image in one transaction: a deploy waits for its end


class Renewing:
    """The background task of one control process. `run` until cancelled."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._former = FormerSnapshots(node.settings.former_dir)
        self._given_up: set[tuple[str, Digest, Digest]] = set()  # until the next start
        self._said = 0.0

    async def run(self) -> None:
        """Never raises for what one round found."""
        renewals = self._node.renewals
        first = True
        while True:
            try:
                if first or await self._is_asked():
                    first = False
                    images, renewals.images = renewals.images, set()
                    await self.round(images)
            except Exception:  # of ours or not: apps are served, and the next round may work
                _log.exception("looking after snapshots failed; going on")
            try:
                async with asyncio.timeout(_ASK_WORKERS_S):
                    await renewals.asked.wait()
            except TimeoutError:
                failed = await self._node.workers.failed_images()
                renewals.doubt([Digest(image) for image in failed])

    async def _is_asked(self) -> bool:
        """Most of what was asked needs nothing; then not every app is read."""
        renewals, node = self._node.renewals, self._node
        renewals.asked.clear()
        names, renewals.apps = renewals.apps, set()

        def any_outdated() -> bool:
            for tenant, label in names:
                mine = node.state.of(tenant)
                app = mine.apps.labelled(label)
                version = mine.versions.get(label, app.live_version) if app else None
                if version and is_outdated(version, renewals.current, ()):
                    return True
            return False

        return bool(renewals.images) or await asyncio.to_thread(any_outdated)

    async def round(self, doubted: Collection[Digest] = ()) -> None:
        """Renew what is out of date now; `doubted` images are read and hashed first."""
        todo, ready = await asyncio.to_thread(self._look, doubted)
        todo, back = await self._take_back(todo)
        progress = self._node.renewals
        if todo or back:
            progress.total, progress.done, progress.failed = len(todo) + back, back, 0
        if not todo:
            return
        _log.info("snapshots  %d to be rebuilt; plain boots serve meanwhile", len(todo))
        self._said = time.monotonic()
        while todo:
            kind, version = todo[0]
            snapshot = ready.find(kind)
            if snapshot is None:
                await self._quiet()
                if not await asyncio.to_thread(self._serves, version, kind.tenant):
                    todo = todo[1:]
                    progress.done += 1
                    continue
                try:
                    snapshot = await self._take(version, kind.tenant)
                    ready.add(kind, snapshot)
                except IsopodError as error:
                    takers = [v for k, v in todo if k == kind]
                    todo = [one for one in todo if one[0] != kind]
                    await asyncio.to_thread(self._fail, kind.tenant, takers, error)
                    self._say(last=not todo)
                    continue
            takers = [v for k, v in todo if ready.find(k) is snapshot]
            todo = [one for one in todo if ready.find(one[0]) is not snapshot]
            for some in _chunks(takers):
                try:
                    await asyncio.shield(self._give(some, snapshot, kind.tenant))
                    progress.done += len(some)
                except IsopodError as error:
                    await asyncio.to_thread(self._fail, kind.tenant, some, error)
                self._say(last=not todo and some[-1] is takers[-1])

    def _look(self, doubted: Collection[Digest]) -> tuple[list[tuple[Kind, AppVersion]], Ready]:
        """What is to be renewed, and what is ready for others of its kind. Blocks."""
        node, current = self._node, self._node.renewals.current
        live = [(t, v) for t, v in node.state.node.live() if v.spec.startup.snapshot]
        for runtime in {v.spec.runtime for _, v in live} - current.keys():
            try:
                current[runtime] = node.catalog.image_digest(runtime)
            except IsopodError as error:
                _log.warning("runtime %r: %s; its snapshots stay", runtime, error.message)
        images = {v.snapshot.image for _, v in live if v.snapshot and v.snapshot.image}
        lost = {image for image in images if not node.blobs.has(image)}
        lost |= {image for image in images & set(doubted) if not sound(node, image)}
        old = [(t, v) for t, v in live if is_outdated(v, current, lost)]
        secrets = _Secrets(node)
        todo = [
            (Kind.of(v, t, secrets.names(t, v)), v) for t, v in old if _key(v) not in self._given_up
        ]
        ready = Ready()
        shapes = {kind.shape for kind, _ in todo}
        if shapes:
            stale = {v.app for _, v in old}
            for tenant, version in live:
                if version.app in stale or not version.snapshot or not version.snapshot.image:
                    continue
                kind = Kind.of(version, tenant, secrets.names(tenant, version))
                if kind.shape in shapes:
                    ready.add(kind, version.snapshot)
        return todo, ready

    async def _take_back(
        self, todo: list[tuple[Kind, AppVersion]]
    ) -> tuple[list[tuple[Kind, AppVersion]], int]:
        """Give every version that had an image under the engine that runs now that one again, also
        where another engine's was refused. Returns the others of `todo`, and how many got it."""
        back = await asyncio.to_thread(self._find_former, todo)
        given: set[tuple[str, int]] = set()
        for tenant, version, snapshot in back:
            try:
                await asyncio.shield(self._give([version], snapshot, tenant))
            except IsopodError as error:
                _log.warning("app %r: its former snapshot stays unused: %s", version.app, error)
            else:
                given.add((version.app, version.number))
        if given:
            _log.info("snapshots  %d taken back from when this engine ran before", len(given))
        return [one for one in todo if (one[1].app, one[1].number) not in given], len(given)

    def _find_former(
        self, todo: list[tuple[Kind, AppVersion]]
    ) -> list[tuple[TenantName, AppVersion, Snapshot]]:
        node, current = self._node, self._node.renewals.current
        asked = [(kind.tenant, version) for kind, version in todo]
        # Plain boot may have been another engine's verdict.
        asked += [
            (tenant, version)
            for tenant, version in node.state.node.live()
            if version.spec.startup.snapshot and version.snapshot and not version.snapshot.image
        ]
        whole: dict[Digest, bool] = {}
        secrets = _Secrets(node)
        found = []
        for tenant, version in asked:
            runtime = current.get(version.spec.runtime)
            snapshot = self._former.find(tenant, version, runtime) if runtime else None
            if snapshot is None or snapshot.secrets != secrets.names(tenant, version):
                continue
            if snapshot.image not in whole:
                whole[snapshot.image] = sound(node, snapshot.image)
            if whole[snapshot.image]:
                found.append((tenant, version, snapshot))
        return found

    async def _quiet(self) -> None:
        """Until nobody deploys, or for a while: a tenant that always deploys must not keep the
        others' apps from having snapshots."""
        end = time.monotonic() + _WAIT_AT_MOST_S
        while self._node.deploying and time.monotonic() < end:  # noqa: ASYNC110  a poll will do
            await asyncio.sleep(_QUIET_S)

    def _serves(self, version: AppVersion, tenant: TenantName) -> bool:
        """Whether it is live still, as it was read."""
        mine = self._node.state.of(tenant)
        app = mine.apps.labelled(version.app)
        live = app is not None and app.live_version == version.number
        return live and mine.versions.get(version.app, version.number) == version

    async def _take(self, version: AppVersion, tenant: TenantName) -> Snapshot:
        node, settings = self._node, self._node.settings
        name = AppName(name_of_label(version.app))
        sealed = await asyncio.to_thread(node.state.of(tenant).secrets.sealed, name)
        job = BuildJob(
            package=version.package,
            app_name=version.app,
            folder_name="",
            env=version.spec.env,
            blobs_dir=str(settings.blobs_dir),
            trees_dir=str(settings.trees_dir),
            images_dir=str(settings.images_dir),
            image_cache_mib=settings.image_cache_mib,
            cache_dir=str(settings.cache_dir),
            timeout_s=settings.build_timeout_s,
            only_snapshot={"spec": version.spec.to_json(), "build": version.build.to_json()},
            secrets=node.open_secrets(tenant, name, sealed),
            secrets_of=name,
        )
        async with (
            built_apart(job, tenant, name, node=node) as job,
            aclosing(node.builder.build(job)) as lines,
        ):
            async for line in lines:
                if isinstance(line, Built) and line.snapshot is not None:
                    return line.snapshot
        raise BuildFailed("the builder gave no snapshot")

    async def _give(
        self, versions: Sequence[AppVersion], snapshot: Snapshot, tenant: TenantName
    ) -> None:
        node = self._node
        changed: list[AppVersion] = []

        def publish() -> list[AppVersion]:
            with node.publishing:
                with node.state.transaction() as t:
                    mine, given, routes = t.of(tenant), [], []
                    for version in versions:
                        app = mine.apps.labelled(version.app)
                        if app is None or app.live_version != version.number:
                            continue
                        sealed = mine.secrets.sealed(app.name)
                        renewed = replace(version, snapshot=snapshot)
                        if fitting(renewed, sealed) is not renewed:
                            changed.append(version)  # while it was taken
                            continue
                        if _runtime_of(version) != snapshot.runtime:
                            self._former.keep(tenant, version)
                        if mine.versions.set_snapshot(version, snapshot):
                            given.append(renewed)
                            routes.append(
                                route_of(
                                    renewed,
                                    tenant,
                                    sealed,
                                    mine.volumes,
                                    learns_until=node.learns_until(app.label),
                                )
                            )
                node.routes.put(*routes)
            return given

        given = await asyncio.to_thread(publish)
        for version in changed:
            node.renewals.look_at(version, tenant)
        if given:
            # One is enough for the image that they share.
            await node.workers.refresh(given[0].app)

    def _fail(self, tenant: TenantName, versions: Sequence[AppVersion], error: IsopodError) -> None:
        self._node.renewals.failed += len(versions)
        self._given_up.update(_key(version) for version in versions)
        first = versions[0].app
        more = f" and {len(versions) - 1} more" if len(versions) > 1 else ""
        _log.warning("app %r%s: no new snapshot: %s", first, more, error.message)
        for version in versions:
            message = f"{error.code}: no new snapshot: {error.message}; starting without it"
            say(self._node, tenant, version.app, message, version=version.number)

    def _say(self, *, last: bool) -> None:
        now = time.monotonic()
        if last or now - self._said >= _SAY_EVERY_S:
            self._said = now
            progress = self._node.renewals
            failed = f", {progress.failed} failed" if progress.failed else ""
            _log.info("snapshots  %d of %d rebuilt%s", progress.done, progress.total, failed)


class _Secrets:
    """The names of all apps' secrets, as they are now."""

    def __init__(self, node: Node) -> None:
        self._all = node.state.node.secrets()

    def names(self, tenant: TenantName, version: AppVersion) -> tuple[str, ...]:
        return tuple(sorted(self._all.get((tenant, AppName(name_of_label(version.app))), ())))


def _key(version: AppVersion) -> tuple[str, Digest, Digest]:
    """Changes when a deploy makes another version of the app, or gives it another image."""
    return version.app, version.digest, version.snapshot.image if version.snapshot else Digest("")


def _runtime_of(version: AppVersion) -> Digest:
    return version.snapshot.runtime if version.snapshot else Digest("")


def _chunks(versions: Sequence[AppVersion]) -> Iterator[Sequence[AppVersion]]:
    for at in range(0, len(versions), _AT_ONCE):
        yield versions[at : at + _AT_ONCE]
