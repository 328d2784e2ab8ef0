"""The image of a booted, warmed app, if it can have one.

The first boot has made-up settings: if the app reads none until its snapshot, the image holds
nobody's, and apps of the same package share it. Otherwise the image is taken with the real ones and
is the app's own. Secrets are always made up, and one that is read costs the image; so does an open
file. Random numbers that were drawn make an image private: what an app made of them is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image, write_sparse
from isopod.engine.scheduler import Scheduler, in_scheduler
from isopod.errors import (
    AppFailedToStart,
    DeadlineExceeded,
    DiskFull,
    GuestProtocolError,
    IsopodError,
    disk_full_is_clear,
)
from isopod.model.app import AppSpec
from isopod.model.snapshot import Finding, Snapshot, plain
from isopod.runtimes.ruby.artifacts import image_digest
from isopod.runtimes.ruby.runtime import RESERVED_BYTES, RubyRuntime
from isopod.runtimes.ruby.serve import RubyGuest
from isopod.runtimes.temporary import TemporaryFolder
from isopod.runtimes.warming import Warmup, bounded, requests_of, warm

_BOOT_S = 60.0
_REQUEST_S = 10.0
_MAX_BYTES = RESERVED_BYTES + (500 << 20)
# The interpreter and the C library read these before any code that could be watched.
_INTERPRETERS = ("RUBY", "LC_", "LANG", "TZ")


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


@dataclass(frozen=True, slots=True)
class _Taken:
    """`read`: setting -> "file:line" that read it. `findings`: what must not be shared."""

    path: Path
    size: int
    clock_ns: int
    drawn: bool
    read: Mapping[str, str]
    findings: tuple[Finding, ...]


def take_snapshot(
    runtime: RubyRuntime, source: Source, *, images: ImageCache, work: Path
) -> Snapshot:
    """Never raises for what the app does. Raises DiskFull."""
    if not source.spec.startup.snapshot:
        return plain("snapshots are off: [startup] snapshot = false")
    requests = requests_of(source.spec)
    findings: tuple[Finding, ...] = ()
    for warmup in (requests, []) if requests else ([],):
        try:
            taken, held = _take(runtime, source, warmup, work)
            if taken.findings:
                findings += taken.findings
                continue
            snapshot = _keep(runtime, taken, images, findings, held, warmed=bool(warmup))
            _try_out(runtime, source, warmup, images, snapshot, work)
        except DiskFull:
            raise
        except IsopodError as error:
            what = str(error.details.get("summary", "")) or error.message
            findings += (Finding("warm-up" if warmup else "boot", what, ""),)
            continue
        finally:
            (work / "app.image").unlink(missing_ok=True)
        return snapshot
    return plain("what it holds when it has booted cannot be shared", findings)


def _take(
    runtime: RubyRuntime, source: Source, warmup: Warmup, work: Path
) -> tuple[_Taken, tuple[Finding, ...]]:
    """An image, and which settings it holds."""
    env = {name: text for name, text in source.spec.env.items() if name not in source.secrets}
    early = [name for name in sorted(source.variables) if name.startswith(_INTERPRETERS)]
    if env and not early:
        try:
            taken = _boot(runtime, source, _made_up(source.variables), warmup, work)
        except (DeadlineExceeded, DiskFull):
            raise
        except IsopodError:
            pass  # a made-up value may be no number, no URL: the app tried to use it
        else:
            if not taken.read:
                return taken, ()
        (work / "app.image").unlink(missing_ok=True)
    taken = _boot(runtime, source, {**env, **_made_up(source.secrets)}, warmup, work)
    read = {**dict.fromkeys(early, ""), **taken.read}
    told = {
        name: Finding(
            "secret" if name in source.secrets else "setting",
            f"{name} is read before the snapshot",
            place,
        )
        for name, place in sorted(read.items())
    }
    secrets = tuple(told[name] for name in told if name in source.secrets)
    held = tuple(told[name] for name in told if name not in source.secrets)
    if env and not held:
        held = (Finding("setting", "a value is used when the app starts", ""),)
    return (
        _Taken(
            *(taken.path, taken.size, taken.clock_ns, taken.drawn, taken.read),
            (*taken.findings, *secrets),
        ),
        held,
    )


def _made_up(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: f"made-up-{name}" for name in variables}


def _boot(
    runtime: RubyRuntime, source: Source, env: Mapping[str, str], warmup: Warmup, work: Path
) -> _Taken:
    out = work / "app.image"
    tmp = TemporaryFolder(work)

    async def take(scheduler: Scheduler) -> _Taken:
        guest = _guest(runtime, scheduler, source, env, tmp.path, None, sorted(source.variables))
        try:
            async with bounded(_BOOT_S, "the start"):
                await guest.start()
            for request, body in warmup:
                async with bounded(_REQUEST_S, f"the warm-up {request.method} {request.path}"):
                    await warm(guest, request, body)
            drawn = guest.drew_random
            async with bounded(_BOOT_S, "the snapshot"):
                report = await guest.prepare_image(source.spec.startup.before_snapshot)
            read, findings = _parsed(report)
            memory = guest.instance.memory()
            if len(memory) > _MAX_BYTES:
                raise AppFailedToStart(f"its memory of {len(memory) >> 20} MiB is too large")
            with disk_full_is_clear(str(work)):
                write_sparse(memory, out)
            clock_ns = guest.instance.clock_ns
            return _Taken(out, len(memory), clock_ns, drawn, read, findings)
        finally:
            guest.close()

    try:
        return in_scheduler(runtime.linkage.engine, take)
    finally:
        tmp.remove()


def _parsed(report: Mapping[str, Any]) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """What the guest says of itself. Raises GuestProtocolError."""
    try:
        read = {str(name): str(place)[:200] for name, place in dict(report["read"]).items()}
        found = [(str(kind), str(what)[:200], str(place)[:200]) for kind, what, place in
                 list(report["findings"])[:50]]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise GuestProtocolError("the guest sent a report that is none") from error
    return read, tuple(Finding(*one) for one in found)


def _keep(
    runtime: RubyRuntime,
    taken: _Taken,
    images: ImageCache,
    findings: tuple[Finding, ...],
    held: tuple[Finding, ...],
    *,
    warmed: bool,
) -> Snapshot:
    digest, own_bytes, blob_bytes = images.put(taken.path, runtime.base_image, taken.clock_ns)
    reasons = ["the image holds values of its settings"] if held else []
    drawn: tuple[Finding, ...] = ()
    if taken.drawn:
        what = "random bytes are drawn before the snapshot and may be kept"
        drawn = (Finding("entropy", what, ""),)
        reasons.append("the image may hold random bytes that are its own")
    return Snapshot(
        verdict="unwarmed" if findings and not warmed else "sound",
        image=digest,
        runtime=image_digest(),
        size=taken.size,
        own_bytes=own_bytes,
        blob_bytes=blob_bytes,
        private=bool(held) or taken.drawn,
        why=", ".join(reasons),
        findings=(*findings, *held, *drawn),
    )


def _try_out(
    runtime: RubyRuntime,
    source: Source,
    warmup: Warmup,
    images: ImageCache,
    snapshot: Snapshot,
    work: Path,
) -> None:
    """That a start from the image works, before a worker relies on it."""
    opened = images.open(snapshot.image, runtime.base_image)
    tmp = TemporaryFolder(work)

    async def start(scheduler: Scheduler) -> None:
        image = Image(opened.fd, opened.size, opened.clock_ns)
        guest = _guest(runtime, scheduler, source, source.variables, tmp.path, image, None)
        try:
            async with bounded(_REQUEST_S, "a start from the image"):
                await guest.start()
                if warmup:
                    await warm(guest, *warmup[0])
        finally:
            guest.close()

    try:
        in_scheduler(runtime.linkage.engine, start)
    finally:
        opened.close()
        tmp.remove()


def _guest(
    runtime: RubyRuntime,
    scheduler: Scheduler,
    source: Source,
    env: Mapping[str, str],
    tmp: Path,
    image: Image | None,
    watch: list[str] | None,
) -> RubyGuest:
    spec = source.spec
    return runtime.new_guest(
        scheduler=scheduler,
        app_tree=source.app_tree,
        site_tree=source.site_tree,
        tmp=tmp,
        entrypoint=spec.entrypoint,
        env=env,
        memory_mib=spec.limits.memory_mib,
        disk_mib=spec.limits.disk_mib,
        output=lambda _stream, _data: None,
        image=image,
        after_restore=spec.startup.after_restore,
        watch=watch,
    )
