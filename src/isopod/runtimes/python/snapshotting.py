"""Which image an app gets, if any: the snapshot linter's decision.

An image is taken after a boot with planted settings, so that it can be shared by all apps that have
the same package and the same names of settings. An app that reads a setting before its snapshot
gets an image with the real values, which is its own. What must not be shared (an open file, a
connection to a database file) costs the warm-up first, the image then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.errors import DiskFull, IsopodError
from isopod.model.app import AppSpec, WarmupRequest
from isopod.model.snapshot import Finding, Snapshot, Verdict, plain
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python import imaging
from isopod.runtimes.python.artifacts import image_digest
from isopod.runtimes.python.runtime import PythonRuntime, TemporaryFolder, in_scheduler

MAX_IMAGE_BYTES = 500 << 20
# The second of the same request takes paths that the first one left cold; a third, hardly any.
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """What an image is taken of."""

    app_tree: Path
    site_tree: Path
    spec: AppSpec


def take_snapshot(
    runtime: PythonRuntime, source: Source, *, images: ImageCache, work: Path
) -> Snapshot:
    """Boots the app once to three times. Never raises for what the app does: a snapshot is a gain,
    not a condition. Raises DiskFull."""
    startup = source.spec.startup
    if not startup.snapshot:
        return plain("snapshots are off: [startup] snapshot = false")
    warmup_requests = [_warmup(one) for one in startup.warmup for _ in range(_REPEATS)]
    findings: tuple[Finding, ...] = ()
    for verdict, warmup in (("sound", warmup_requests), ("unwarmed", [])):
        try:
            taken, private = _take(runtime, source, warmup, work)
        except DiskFull:
            raise
        except (IsopodError, TimeoutError) as error:
            summary = str(error) or "it took too long"
            findings = (*findings, Finding("warm-up" if warmup else "boot", summary, ""))
            continue
        found = tuple(Finding(*finding) for finding in taken.findings)
        if found:
            findings = found
            taken.path.unlink()
            continue
        return _keep(runtime, taken, verdict, images, findings + private)
    return plain("what it holds when it has booted cannot be shared", findings)


def _take(
    runtime: PythonRuntime, source: Source, warmup: Sequence[tuple[GuestRequest, bytes]], work: Path
) -> tuple[imaging.Taken, tuple[Finding, ...]]:
    """An image, and the settings that it holds (none: it can be shared)."""
    reads: tuple[Finding, ...] = ()
    if source.spec.env:
        try:
            taken = _boot(runtime, source, warmup, work, planted=True)
        except (IsopodError, TimeoutError):
            # A planted value may be no number, no URL: the app tried to use it.
            reads = (Finding("setting", "a value is used when the app starts", ""),)
        else:
            if not (taken.kept or taken.read):
                return taken, ()
            taken.path.unlink()
            reads = tuple(
                Finding("setting", f"{name} is read before the snapshot", place)
                for name, place in sorted(taken.read.items())
            ) or (Finding("setting", "a value is kept before the snapshot", ""),)
    return _boot(runtime, source, warmup, work, planted=False), reads


def _boot(
    runtime: PythonRuntime,
    source: Source,
    warmup: Sequence[tuple[GuestRequest, bytes]],
    work: Path,
    *,
    planted: bool,
) -> imaging.Taken:
    tmp = TemporaryFolder(work)
    try:
        out = tmp.path.with_suffix(".image")
        out.unlink(missing_ok=True)
        return in_scheduler(
            runtime,
            lambda scheduler: imaging.take(
                runtime,
                scheduler,
                app_tree=source.app_tree,
                site_tree=source.site_tree,
                tmp=tmp.path,
                spec=source.spec,
                planted=planted,
                warmup=warmup,
                out=out,
            ),
            timeout_s=120.0,
        )
    finally:
        tmp.remove()


def _keep(
    runtime: PythonRuntime,
    taken: imaging.Taken,
    verdict: str,
    images: ImageCache,
    findings: tuple[Finding, ...],
) -> Snapshot:
    if taken.size > MAX_IMAGE_BYTES:
        taken.path.unlink()
        return plain(
            f"its memory of {taken.size >> 20} MiB is larger than an image may be "
            f"({MAX_IMAGE_BYTES >> 20} MiB)",
            findings,
        )
    digest, own_bytes, blob_bytes = images.put(taken.path, runtime.base_image, taken.clock_ns)
    taken.path.unlink()
    images.open(digest, runtime.base_image).close()  # ready on this node, and known to be whole
    kind: Verdict = "sound" if verdict == "sound" else "unwarmed"
    private = any(finding.kind == "setting" for finding in findings)
    return Snapshot(
        verdict=kind,
        image=digest,
        runtime=image_digest(),
        size=taken.size,
        own_bytes=own_bytes,
        blob_bytes=blob_bytes,
        private=private,
        why="the image holds values of its settings" if private else "",
        findings=findings,
    )


def _warmup(one: WarmupRequest) -> tuple[GuestRequest, bytes]:
    """A warm-up as the gateway would send it, so that the very path of a real one is warm."""
    path, _, query = one.path.partition("?")
    body = one.body.encode()
    headers = {
        "user-agent": "isopod-warmup",
        "accept": "*/*",
        **{name.lower(): value for name, value in one.headers},
        "host": "localhost",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "localhost",
        "x-request-id": "warmup",
        "x-isopod-warmup": "1",
    }
    if body:
        headers["content-length"] = str(len(body))
    request = GuestRequest(
        method=one.method,
        path=path,
        query=query,
        protocol="HTTP/1.1",
        scheme="http",
        host="localhost",
        port=80,
        client="127.0.0.1",
        headers=tuple(headers.items()),
        has_body=bool(body),
    )
    return request, body
