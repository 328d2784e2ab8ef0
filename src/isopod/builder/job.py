"""One job in this process, from its JSON to the last line, whatever happens on the way."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isopod.blobs.images import ImageCache
from isopod.blobs.store import BlobStore
from isopod.blobs.trees import TreeCache
from isopod.builder.report import Report
from isopod.builder.steps import Builds
from isopod.errors import (
    BuildFailed,
    BuildMemoryExceeded,
    BuildTimeout,
    IsopodError,
    disk_full_is_clear,
)
from isopod.model.build import BuildJob
from isopod.runtimes.registry import Registry


def took_too_long(job: BuildJob) -> BuildTimeout:
    return BuildTimeout(
        f"the build took longer than {job.timeout_s:g} s",
        hint="deploy fewer dependencies; the node's operator can raise the build timeout",
    )


def took_too_much_memory(job: BuildJob) -> BuildMemoryExceeded:
    return BuildMemoryExceeded(
        f"the build used more than the {job.memory_mib} MiB that a build may use",
        details={"limit_mib": job.memory_mib},
    )


def run(
    job: BuildJob,
    *,
    work: Path,
    report: Report,
    runtimes: Registry,
    before_guests: Callable[[], None],
) -> int:
    """Build, and say how it ended. Returns the process's exit status. `work` is scratch space,
    gone before the end is told: then nobody waits for this process any more. `before_guests` is
    called when nothing more is fetched, and nothing of the app's has run.

    Time and memory are bounded from outside (see `watch`): the exception of a signal may come up
    in a callback of the engine's, where it does harm.
    """
    try:
        result = _build(job, work, report, runtimes, before_guests)
    except MemoryError:
        return _failed(report, took_too_much_memory(job))
    except IsopodError as error:
        return _failed(report, error)
    except Exception as error:
        return _failed(
            report,
            BuildFailed(
                f"the builder failed: {type(error).__name__}: {error}",
                details={"traceback": traceback.format_exc()},
            ),
        )
    report.end({"result": result})
    return 0


def _build(
    job: BuildJob,
    work: Path,
    report: Report,
    runtimes: Registry,
    before_guests: Callable[[], None],
) -> dict[str, Any]:
    with disk_full_is_clear(job.trees_dir):
        blobs = BlobStore(Path(job.blobs_dir))
        trees = TreeCache(Path(job.trees_dir), blobs)
        images = ImageCache(Path(job.images_dir), blobs, limit_bytes=job.image_cache_mib << 20)
        built = Builds(
            job,
            report=report,
            blobs=blobs,
            trees=trees,
            images=images,
            work=work,
            runtimes=runtimes,
            before_guests=before_guests,
        ).run()
    return {
        "name": built.spec.name,
        "spec": built.spec.to_json(),
        "build": built.build.to_json(),
        "snapshot": built.snapshot.to_json(),
    }


def _failed(report: Report, error: IsopodError) -> int:
    report.end({"error": error.to_wire()})
    return 1
