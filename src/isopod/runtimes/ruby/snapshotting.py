"""The image of a booted, warmed app, if it can have one.

The first boot has made-up settings: if the app reads none until its snapshot, the image holds
nobody's, and apps of the same package share it. Otherwise the image is taken with the real ones and
is the app's own. Secrets are always made up, and one that is read costs the image; so does an open
file. Random numbers that were drawn make an image private: what an app made of them is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.engine.image import Image
from isopod.engine.scheduler import Scheduler
from isopod.errors import DeadlineExceeded, DiskFull, GuestProtocolError, IsopodError
from isopod.model.snapshot import Finding, Snapshot
from isopod.runtimes.mounts import used_volumes
from isopod.runtimes.ruby.artifacts import image_digest
from isopod.runtimes.ruby.runtime import RESERVED_BYTES, RubyRuntime
from isopod.runtimes.ruby.serve import RubyGuest
from isopod.runtimes.taking import ImageLimits, Source, Taken, Taker
from isopod.runtimes.temporary import Scratch
from isopod.runtimes.warming import Warmup, bounded, requests_of

_LIMITS = ImageLimits(max_bytes=RESERVED_BYTES + (500 << 20))
# The interpreter and the C library read these before any code that could be watched.
_INTERPRETERS = ("RUBY", "LC_", "LANG", "TZ")


def take_snapshot(
    runtime: RubyRuntime, source: Source, *, images: ImageCache, work: Path
) -> Snapshot:
    """Never raises for what the app does. Raises DiskFull."""
    taker = Taker(
        spec=source.spec,
        engine=runtime.linkage.engine,
        base_image=runtime.base_image,
        image_digest=image_digest(),
        images=images,
        work=work,
        limits=_LIMITS,
    )

    def restore(scheduler: Scheduler, folders: Scratch, image: Image) -> RubyGuest:
        return _new_guest(runtime, source, source.variables, scheduler, folders, image=image)

    return taker.take_snapshot(
        lambda warmup, out: _take(runtime, source, taker, warmup, out),
        restore,
        requests=requests_of(source.spec),
    )


def _take(runtime: RubyRuntime, source: Source, taker: Taker, warmup: Warmup, out: Path) -> Taken:
    env = {name: text for name, text in source.spec.env.items() if name not in source.secrets}
    early = [name for name in sorted(source.variables) if name.startswith(_INTERPRETERS)]
    if env and not early:
        try:
            taken, read = _boot(runtime, source, _made_up(source.variables), taker, warmup, out)
        except (DeadlineExceeded, DiskFull):
            raise
        except IsopodError:
            pass  # a made-up value may be no number, no URL: the app tried to use it
        else:
            if not read:
                return taken
        out.unlink(missing_ok=True)
    real = {**env, **_made_up(source.secrets)}
    taken, read = _boot(runtime, source, real, taker, warmup, out)
    told = {
        name: Finding(
            "secret" if name in source.secrets else "setting",
            f"{name} is read before the snapshot",
            place,
        )
        for name, place in sorted({**dict.fromkeys(early, ""), **read}.items())
    }
    secrets = tuple(told[name] for name in told if name in source.secrets)
    held = tuple(told[name] for name in told if name not in source.secrets)
    if env and not held:
        held = (Finding("setting", "a value is used when the app starts", ""),)
    return replace(taken, held=(*held, *taken.held), spoilt=(*taken.spoilt, *secrets))


def _made_up(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: f"made-up-{name}" for name in variables}


def _boot(
    runtime: RubyRuntime,
    source: Source,
    env: Mapping[str, str],
    taker: Taker,
    warmup: Warmup,
    out: Path,
) -> tuple[Taken, dict[str, str]]:
    """An image of the app with these variables, and which it read: name -> "file:line"."""

    def new_guest(scheduler: Scheduler, folders: Scratch) -> RubyGuest:
        watch = sorted(source.variables)
        return _new_guest(runtime, source, env, scheduler, folders, watch=watch)

    async def take(guest: RubyGuest) -> tuple[Taken, dict[str, str]]:
        drawn: tuple[Finding, ...] = ()
        if guest.drew_random:
            what = "random bytes are drawn before the snapshot and may be kept"
            drawn = (Finding("entropy", what, ""),)
        async with bounded(taker.limits.boot_s, "the snapshot"):
            report = await guest.prepare_image(source.spec.startup.before_snapshot)
        read, findings = _parsed(report)
        findings += used_volumes(guest.instance)
        taker.write(guest.instance.memory(), out)
        return Taken(guest.instance.clock_ns, held=drawn, spoilt=findings), read

    return taker.boot(new_guest, warmup, take)


def _parsed(report: Mapping[str, Any]) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """What the guest says of itself. Raises GuestProtocolError."""
    try:
        read = {str(name): str(place)[:200] for name, place in dict(report["read"]).items()}
        found = [(str(kind), str(what)[:200], str(place)[:200]) for kind, what, place in
                 list(report["findings"])[:50]]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise GuestProtocolError("the guest sent a report that is none") from error
    return read, tuple(Finding(*one) for one in found)


def _new_guest(
    runtime: RubyRuntime,
    source: Source,
    env: Mapping[str, str],
    scheduler: Scheduler,
    folders: Scratch,
    *,
    image: Image | None = None,
    watch: list[str] | None = None,
) -> RubyGuest:
    spec = source.spec
    return runtime.new_guest(
        scheduler=scheduler,
        app_tree=source.app_tree,
        site_tree=source.site_tree,
        tmp=folders.tmp,
        entrypoint=spec.entrypoint,
        env=env,
        memory_mib=spec.limits.memory_mib,
        disk_mib=spec.limits.disk_mib,
        output=lambda _stream, _data: None,
        image=image,
        after_restore=spec.startup.after_restore,
        watch=watch,
        volumes=folders.volumes,
    )
