"""Which image an app gets, if any: the snapshot linter's decision.

An image is taken after a boot with planted settings, so that it can be shared by all apps that have
the same package and the same names of settings. An app that reads a setting before its snapshot
gets an image with the real values, which is its own. What must not be shared (an open file, a
connection to a database file) costs the warm-up first, the image then. So does a secret that was
read: its values are always planted, and no image holds one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image
from isopod.engine.scheduler import in_scheduler
from isopod.errors import DeadlineExceeded, DiskFull, IsopodError, disk_full_is_clear
from isopod.model.app import AppSpec
from isopod.model.snapshot import Finding, Snapshot, Verdict, plain
from isopod.runtimes.python import imaging
from isopod.runtimes.python.artifacts import image_digest
from isopod.runtimes.python.imaging import ImageLimits, ImageTooLarge
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.temporary import TemporaryFolder, scratch_volumes
from isopod.runtimes.warming import Warmup, requests_of


@dataclass(frozen=True, slots=True)
class Source:
    """What an image is taken of. `secrets`: values that it is tried with, and never holds."""

    app_tree: Path
    site_tree: Path
    spec: AppSpec
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """A secret goes over a setting of its name."""
        return {**self.spec.env, **self.secrets}


def take_snapshot(
    runtime: PythonRuntime,
    source: Source,
    *,
    images: ImageCache,
    work: Path,
    limits: ImageLimits | None = None,
) -> Snapshot:
    """Boots the app once to four times. Never raises for what the app does: a snapshot is a gain,
    not a condition. Raises DiskFull."""
    startup = source.spec.startup
    if not startup.snapshot:
        return plain("snapshots are off: [startup] snapshot = false")
    limits = limits or ImageLimits()
    requests = requests_of(source.spec)
    attempts: list[tuple[Verdict, Warmup]] = [("sound", requests)]
    if requests:
        attempts.append(("unwarmed", []))
    findings: tuple[Finding, ...] = ()
    for verdict, warmup in attempts:
        try:
            taken, held = _take(runtime, source, warmup, work, limits)
        except DiskFull:
            raise
        except ImageTooLarge as error:
            return plain(error.message, findings)
        except IsopodError as error:
            kind = "warm-up" if warmup else "boot"
            findings = _add(findings, _failure(kind, error))
            continue
        shared = tuple(Finding(*finding) for finding in taken.findings)
        if shared:
            findings = _add(findings, *shared)
            taken.path.unlink()
            continue
        snapshot = _keep(runtime, taken, verdict, images, findings, held)
        try:
            _try_out(runtime, source, warmup, images, snapshot, work, limits)
        except DiskFull:
            raise
        except IsopodError as error:
            findings = _add(findings, _failure("restore", error))
            continue
        return snapshot
    return plain("what it holds when it has booted cannot be shared", findings)


def _add(findings: tuple[Finding, ...], *more: Finding) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys((*findings, *more)))


def _failure(kind: str, error: IsopodError) -> Finding:
    what = error.message
    summary = str(error.details.get("summary", ""))
    if summary:
        what = f"{what}: {summary}"
    return Finding(kind, what, str(error.details.get("place", "")))


def _take(
    runtime: PythonRuntime, source: Source, warmup: Warmup, work: Path, limits: ImageLimits
) -> tuple[imaging.Taken, tuple[Finding, ...]]:
    """An image, and what it holds that makes it this app's own (nothing: it can be shared)."""
    env = {name: text for name, text in source.spec.env.items() if name not in source.secrets}
    used = "a value is used when the app starts"
    if env:
        try:
            taken = _boot(runtime, source, warmup, work, limits, planted=source.variables)
        except (ImageTooLarge, DeadlineExceeded, DiskFull):
            raise
        except IsopodError:
            pass  # a planted value may be no number, no URL: the app tried to use it
        else:
            if not (taken.kept or taken.read or imaging.interpreters(env)):
                return taken, _drawn(taken)
            taken.path.unlink()
            used = "a value is kept before the snapshot"
    taken = _boot(runtime, source, warmup, work, limits, planted=source.secrets)
    taken = _with_secrets_found(taken, source.secrets)
    held = [
        Finding("setting", f"{name} is read before the snapshot", place)
        for name, place in sorted(taken.read.items())
        if name not in source.secrets
    ]
    held += [
        Finding("setting", f"{name} is for the interpreter, which reads it first", "")
        for name in imaging.interpreters(env)
    ]
    if env and not held:
        held = [Finding("setting", used, "")]
    return taken, (*held, *_drawn(taken))


def _with_secrets_found(taken: imaging.Taken, names: Collection[str]) -> imaging.Taken:
    """What was made of a secret may be in the image, so one that was read is as bad as one that is
    kept: a finding that costs the image."""
    found = [
        ("secret", f"{name} is read before the snapshot", taken.read[name])
        for name in sorted(names)
        if name in taken.read
    ]
    if taken.kept and not found:
        found = [("secret", "the value of a secret is kept before the snapshot", "")]
    return replace(taken, findings=(*taken.findings, *found)) if found else taken


def _drawn(taken: imaging.Taken) -> tuple[Finding, ...]:
    what = "random bytes are drawn before the snapshot and may be kept"
    return tuple(Finding("entropy", what, place) for place in taken.entropy)


def _boot(
    runtime: PythonRuntime,
    source: Source,
    warmup: Warmup,
    work: Path,
    limits: ImageLimits,
    *,
    planted: Collection[str],
) -> imaging.Taken:
    tmp, volumes = TemporaryFolder(work), TemporaryFolder(work)
    lent = scratch_volumes(source.spec, volumes.path)
    try:
        out = tmp.path.with_suffix(".image")
        out.unlink(missing_ok=True)
        with disk_full_is_clear(str(work)):
            return in_scheduler(
                runtime.linkage.engine,
                lambda scheduler: imaging.take(
                    runtime,
                    scheduler,
                    app_tree=source.app_tree,
                    site_tree=source.site_tree,
                    tmp=tmp.path,
                    volumes=lent,
                    spec=source.spec,
                    variables=source.variables,
                    planted=planted,
                    warmup=warmup,
                    out=out,
                    limits=limits,
                ),
            )
    finally:
        tmp.remove()
        volumes.remove()


def _keep(
    runtime: PythonRuntime,
    taken: imaging.Taken,
    verdict: Verdict,
    images: ImageCache,
    findings: tuple[Finding, ...],
    held: tuple[Finding, ...],
) -> Snapshot:
    digest, own_bytes, blob_bytes = images.put(taken.path, runtime.base_image, taken.clock_ns)
    taken.path.unlink()
    kinds = {finding.kind for finding in held}
    reasons = [
        *(["the image holds values of its settings"] if "setting" in kinds else []),
        *(["the image may hold random bytes that are its own"] if "entropy" in kinds else []),
    ]
    times = tuple(
        Finding("time", f"{name} is the time of the deploy in each instance", place)
        for name, place in taken.times
    )
    return Snapshot(
        verdict=verdict,
        image=digest,
        runtime=image_digest(),
        size=taken.size,
        own_bytes=own_bytes,
        blob_bytes=blob_bytes,
        private=bool(held),
        why=", ".join(reasons),
        findings=_add(findings, *held, *times),
    )


def _try_out(
    runtime: PythonRuntime,
    source: Source,
    warmup: Warmup,
    images: ImageCache,
    snapshot: Snapshot,
    work: Path,
    limits: ImageLimits,
) -> None:
    """That a start from the image works, before a worker relies on it. The image is then ready on
    this node."""
    tmp, volumes = TemporaryFolder(work), TemporaryFolder(work)
    lent = scratch_volumes(source.spec, volumes.path)
    opened = images.open(snapshot.image, runtime.base_image)
    # A request without a body, of those that were answered.
    first = next((request for request, body in warmup if not body), None)
    try:
        in_scheduler(
            runtime.linkage.engine,
            lambda scheduler: imaging.try_out(
                runtime,
                scheduler,
                image=Image(opened.fd, opened.size, opened.clock_ns),
                app_tree=source.app_tree,
                site_tree=source.site_tree,
                tmp=tmp.path,
                volumes=lent,
                spec=source.spec,
                variables=source.variables,
                request=first,
                limits=limits,
            ),
        )
    finally:
        opened.close()
        tmp.remove()
        volumes.remove()
