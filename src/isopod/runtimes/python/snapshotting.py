"""Which image an app gets, if any: the snapshot linter's decision.

An image is taken after a boot with planted settings, so that it can be shared by all apps that have
the same package and the same names of settings. An app that reads a setting before its snapshot
gets an image with the real values, which is its own. What must not be shared (an open file, a
connection to a database file) costs the warm-up first, the image then. So does a secret that was
read: its values are always planted, and no image holds one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import DeadlineExceeded, DiskFull, IsopodError, disk_full_is_clear
from isopod.model.snapshot import Finding, Snapshot, Verdict, plain
from isopod.runtimes import taking
from isopod.runtimes.python import imaging
from isopod.runtimes.python.artifacts import image_digest
from isopod.runtimes.python.imaging import ImageTooLarge
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest
from isopod.runtimes.taking import ImageLimits, Source, Taker
from isopod.runtimes.temporary import Scratch, scratch
from isopod.runtimes.warming import Warmup, requests_of


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
    if not source.spec.startup.snapshot:
        return plain(taking.OFF)
    taker = Taker(
        spec=source.spec,
        engine=runtime.linkage.engine,
        base_image=runtime.base_image,
        image_digest=image_digest(),
        images=images,
        work=work,
        limits=limits or ImageLimits(),
    )
    requests = requests_of(source.spec)
    attempts: list[tuple[Verdict, Warmup]] = [("sound", requests)]
    if requests:
        attempts.append(("unwarmed", []))
    findings: tuple[Finding, ...] = ()
    for verdict, warmup in attempts:
        try:
            taken, held = _take(runtime, source, taker, warmup)
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
        snapshot = _keep(taker, taken, verdict, findings, held)
        try:
            _try_out(runtime, source, taker, snapshot, warmup)
        except DiskFull:
            raise
        except IsopodError as error:
            findings = _add(findings, _failure("restore", error))
            continue
        return snapshot
    return plain(taking.NOT_SHARED, findings)


def _add(findings: tuple[Finding, ...], *more: Finding) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys((*findings, *more)))


def _failure(kind: str, error: IsopodError) -> Finding:
    what = error.message
    summary = str(error.details.get("summary", ""))
    if summary:
        what = f"{what}: {summary}"
    return Finding(kind, what, str(error.details.get("place", "")))


def _take(
    runtime: PythonRuntime, source: Source, taker: Taker, warmup: Warmup
) -> tuple[imaging.Taken, tuple[Finding, ...]]:
    """An image, and what it holds that makes it this app's own (nothing: it can be shared)."""
    env = {name: text for name, text in source.spec.env.items() if name not in source.secrets}
    used = "a value is used when the app starts"
    if env:
        try:
            taken = _boot(runtime, source, taker, warmup, planted=source.variables)
        except (ImageTooLarge, DeadlineExceeded, DiskFull):
            raise
        except IsopodError:
            pass  # a planted value may be no number, no URL: the app tried to use it
        else:
            if not (taken.kept or taken.read or imaging.interpreters(env)):
                return taken, _drawn(taken)
            taken.path.unlink()
            used = "a value is kept before the snapshot"
    taken = _boot(runtime, source, taker, warmup, planted=source.secrets)
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
    taker: Taker,
    warmup: Warmup,
    *,
    planted: Collection[str],
) -> imaging.Taken:
    out = taker.work / "app.image"
    out.unlink(missing_ok=True)
    with scratch(source.spec, taker.work) as folders, disk_full_is_clear(str(taker.work)):
        return in_scheduler(
            taker.engine,
            lambda scheduler: imaging.take(
                runtime,
                scheduler,
                app_tree=source.app_tree,
                site_tree=source.site_tree,
                tmp=folders.tmp,
                volumes=folders.volumes,
                spec=source.spec,
                variables=source.variables,
                planted=planted,
                warmup=warmup,
                out=out,
                limits=taker.limits,
            ),
        )


def _keep(
    taker: Taker,
    taken: imaging.Taken,
    verdict: Verdict,
    findings: tuple[Finding, ...],
    held: tuple[Finding, ...],
) -> Snapshot:
    times = tuple(
        Finding("time", f"{name} is the time of the deploy in each instance", place)
        for name, place in taken.times
    )
    image = taking.Taken(taken.clock_ns, held=held)
    snapshot = taker.keep(taken.path, image, verdict, _add(findings, *held, *times))
    taken.path.unlink()
    return snapshot


def _try_out(
    runtime: PythonRuntime, source: Source, taker: Taker, snapshot: Snapshot, warmup: Warmup
) -> None:
    def restore(scheduler: Scheduler, folders: Scratch, image: Image) -> PythonGuest:
        spec = source.spec
        return runtime.new_guest(
            scheduler=scheduler,
            app_tree=source.app_tree,
            site_tree=source.site_tree,
            tmp=folders.tmp,
            entrypoint=spec.entrypoint,
            env=source.variables,
            memory_mib=spec.limits.memory_mib,
            disk_mib=spec.limits.disk_mib,
            output=lambda _stream, _data: None,
            image=image,
            after_restore=spec.startup.after_restore,
            volumes=folders.volumes,
        )

    # A request without a body, of those that were answered.
    first = next(((request, body) for request, body in warmup if not body), None)
    try:
        taker.try_out(snapshot, restore, first)
    except IsopodError as error:
        imaging.say_place(error)
        raise
