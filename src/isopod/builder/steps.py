"""The steps of a build, in order: unpack, detect, dependencies, compile, start."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from isopod import manifest as manifests
from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.builder.report import Report
from isopod.builder.sites import SiteCache, site_key
from isopod.errors import ManifestInvalid, UsageError
from isopod.manifest import Manifest
from isopod.model.app import AppSpec, Build
from isopod.model.build import BuildJob
from isopod.model.capability import check_not_more
from isopod.model.ids import AppName, Digest
from isopod.model.snapshot import Snapshot
from isopod.package.unpack import unpack
from isopod.runtimes.base import Runtime
from isopod.runtimes.health import HealthResult
from isopod.runtimes.installed import Installed
from isopod.runtimes.registry import Registry
from isopod.runtimes.static import beside

BUILDER_FORMAT = 1  # raise it when equal inputs shall be built anew


@dataclass(frozen=True, slots=True)
class Built:
    """A build that answered its health request."""

    spec: AppSpec
    build: Build
    snapshot: Snapshot


def build_key(package: Digest, runtime: Digest) -> Digest:
    """The digest of everything that a build is made from. What an app requires is in its package;
    what the index held at the time is not part of it, so a package keeps its dependencies."""
    body = json.dumps([BUILDER_FORMAT, package, runtime])
    return Digest(hashlib.sha256(body.encode()).hexdigest())


def choose_name(given: str, manifest: Manifest, folder_name: str) -> AppName:
    """--name, else the manifest's, else one made from the folder's."""
    if given:
        return AppName.parse(given)
    return manifest.name or AppName.of_folder(folder_name)


class Builds:
    """What a build needs, and the steps over it."""

    def __init__(
        self,
        job: BuildJob,
        *,
        report: Report,
        blobs: BlobStore,
        trees: TreeCache,
        images: ImageCache,
        work: Path,
        runtimes: Registry,
        before_guests: Callable[[], None],
    ) -> None:
        self._job = job
        self._report = report
        self._blobs = blobs
        self._trees = trees
        self._images = images
        self._work = work
        self._runtimes = runtimes
        self._before_guests = before_guests
        self._cache_dir = Path(job.cache_dir)
        self._sites = SiteCache(self._cache_dir / "sites", blobs)

    def run(self) -> Built:
        """Do it all. Leaves blobs and trees only; raises what went wrong."""
        try:
            if self._job.only_snapshot:
                return self._again(self._work)
            return self._run(self._work)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _run(self, work: Path) -> Built:
        job = self._job
        package = Digest.parse(job.package)
        app = work / "app"
        with self._report.step("unpack", "Unpacking") as step:
            files = unpack(self._blobs.open_verified(package), app)
            step.text = f"{files:,} file{'' if files == 1 else 's'}"
        with self._report.step("detect", "Finding the app") as step:
            manifest = manifests.load(app)
            runtime = self._runtimes.choose(app, manifest)
            spec = manifest.to_spec(
                name=choose_name(job.app_name, manifest, job.folder_name),
                runtime=runtime.name,
                entrypoint=runtime.detect(app, manifest),
                env=job.env,
            )
            if spec.volumes and not runtime.mounts_volumes:
                raise ManifestInvalid(
                    f"isopod.toml: [[volumes]] cannot be mounted by {runtime.name!r} apps yet"
                )
            beside.check(app, spec.static)
            self._check_secrets_are_of(spec.name)
            if self._job.live is not None and spec.name == self._job.secrets_of:
                check_not_more(spec, AppSpec.from_json(self._job.live))
            step.text = f"{spec.entrypoint} ({runtime.name})"
        key = build_key(package, runtime.digest())
        build = self._earlier(key) or self._make(key, runtime, app, manifest, work)
        self._before_guests()
        self._start(runtime, spec, build, work)
        return Built(spec, build, self._snapshot(runtime, spec, build, work))

    def _check_secrets_are_of(self, name: AppName) -> None:
        """The caller said which app it is before anybody had read the package."""
        if self._job.secrets and self._job.secrets_of != name:
            raise UsageError(
                f"the deploy came with the secrets of app {self._job.secrets_of!r}, and the "
                f"package is app {name!r}",
                hint=f"say its name: isopod deploy --name {name}",
            )

    def _again(self, work: Path) -> Built:
        """A new snapshot of what serves already."""
        given = self._job.only_snapshot or {}
        spec, build = AppSpec.from_json(given["spec"]), Build.from_json(given["build"])
        self._trees.ensure(build.app_tree)
        self._trees.ensure(build.site_tree)
        runtime = self._runtimes.get(spec.runtime)  # loads the engine's library, while it can
        self._before_guests()
        return Built(spec, build, self._snapshot(runtime, spec, build, work))

    def _earlier(self, key: Digest) -> Build | None:
        """The build that control found, if it was made from the same and its blobs are there."""
        if self._job.reuse is None:
            return None
        build = Build.from_json(self._job.reuse)
        there = self._blobs.has(build.app_tree) and self._blobs.has(build.site_tree)
        if build.key != key or not there:
            return None
        for name, text in (("dependencies", "As built before"), ("compile", "As built before")):
            with self._report.step(name, text):
                pass
        return build

    def _make(
        self, key: Digest, runtime: Runtime, app: Path, manifest: Manifest, work: Path
    ) -> Build:
        site = work / "site"
        with self._report.step("dependencies", "Installing dependencies") as step:
            installed = runtime.install_dependencies(self._cache_dir, app, site)
            step.text = installed.text
        self._before_guests()
        with self._report.step("compile", "Compiling") as step:
            served, said = work / "beside", ""
            if manifest.static_paths:  # before a compiler leaves its own files among them
                said = beside.build(app, manifest.static_paths, served, now=int(time.time()))
            # The app before its dependencies: its mistakes are the likely ones.
            step.text = runtime.compile_app(self._cache_dir, app, manifest)
            if manifest.static_paths:
                served.rename(app / beside.FOLDER)
                step.text += f" (served beside it: {said})"
            app_tree = self._trees.make(app)
            site_tree, again = self._site_tree(runtime, installed, site)
            if installed.distributions and not again:
                step.text += " and its dependencies"
        return Build(key, app_tree, site_tree, installed.distributions)

    def _site_tree(self, runtime: Runtime, installed: Installed, site: Path) -> tuple[Digest, bool]:
        """The compiled dependencies, and whether they were there already."""
        key = site_key(self._job.tenant, installed.fingerprint, runtime.digest())
        found = self._sites.find(key)
        if found is not None:
            return found, True
        runtime.compile_site(self._cache_dir, site)
        tree = self._trees.make(site)
        self._sites.keep(key, tree)
        return tree, False

    def _start(self, runtime: Runtime, spec: AppSpec, build: Build, work: Path) -> HealthResult:
        with self._report.step("start", "Starting it") as step:
            app_tree = self._trees.ensure(build.app_tree)
            site_tree = self._trees.ensure(build.site_tree)
            scratch = work / "tmp"
            scratch.mkdir()
            health = runtime.check_health(
                self._cache_dir,
                app_tree=app_tree,
                site_tree=site_tree,
                # As it will run: an app may need its secrets to start.
                spec=replace(spec, env={**spec.env, **self._job.secrets}),
                tmp_root=scratch,
            )
            step.text = (
                f"{spec.health.path} answered {health.status} "
                f"(start {health.boot_ms:.0f} ms, request {health.request_ms:.0f} ms)"
            )
        return health

    def _snapshot(self, runtime: Runtime, spec: AppSpec, build: Build, work: Path) -> Snapshot:
        with self._report.step("snapshot", "Taking its snapshot") as step:
            scratch = work / "image"
            scratch.mkdir()
            snapshot = runtime.take_snapshot(
                self._cache_dir,
                app_tree=self._trees.path(build.app_tree),
                site_tree=self._trees.path(build.site_tree),
                spec=spec,
                images=self._images,
                work=scratch,
                secrets=self._job.secrets,
            )
            snapshot = replace(snapshot, secrets=tuple(sorted(self._job.secrets)))
            step.text = describe(snapshot)
        return snapshot


def describe(snapshot: Snapshot) -> str:
    """A snapshot's verdict in one line."""
    if snapshot.verdict == "unneeded":
        return snapshot.why
    if not snapshot.image:
        return f"plain boot: {snapshot.why}"
    shared = "private" if snapshot.private else "shared"
    return f"{snapshot.verdict}, {shared}, {snapshot.blob_bytes / 2**20:.1f} MiB"
