"""The builder's processes: one that builds, shut in, and one that watches it.

The second dies with its parent, and the first with it. Both write to the standard output that they
were given; whatever else prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from isopod.builder.report import Report
from isopod.errors import BuildFailed, IsopodError, SandboxUnavailable
from isopod.model.build import BuildJob
from isopod.sandbox import kernel
from isopod.sandbox.builder import BuilderSandbox, Folders, new_namespaces
from isopod.settings import go_environment, npm_environment, package_index_environment

_NICENESS = 5  # requests go before builds
_MORE_NICENESS = 5  # and builds that somebody waits for before the others
_PATIENCE_S = 5.0  # of the kernel's bound, should nobody be left to watch
_LIKELY_VICTIM = "1000"  # of the kernel, when the machine has no memory left


def main() -> int:
    _bind_to_parent()
    os.nice(_NICENESS)
    report = Report(_own_output())
    try:
        job = BuildJob.from_json(json.loads(sys.stdin.read()))
    except (ValueError, TypeError) as error:
        failed = BuildFailed(f"the builder was given no proper job: {error}")
        report.end({"error": failed.to_wire()})
        return 1
    if job.only_snapshot:
        os.nice(_MORE_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LIKELY_VICTIM)
    # On the trees' disk, and swept with them should nobody be left to remove it.
    work = Path(tempfile.mkdtemp(prefix=".tmp-builder-", dir=_made(job.trees_dir)))
    refused = new_namespaces()
    parent = os.getpid()
    if not (pid := os.fork()):
        os._exit(_build(job, report, work, parent=parent, refused=refused))
    return _watch(pid, job, report, work)


def _build(job: BuildJob, report: Report, work: Path, *, parent: int, refused: list[str]) -> int:
    """In the child."""
    _die_with(parent)
    tempfile.tempdir = str(work)
    cache = Path(job.cache_dir)
    sandbox = BuilderSandbox(
        Folders(
            read=(cache / "modules", cache / "runtimes"),
            change=(
                *(Path(_made(folder)) for folder in (job.blobs_dir, job.trees_dir, job.images_dir)),
                *(_made(cache / "sites"), work),
            ),
            fetch=tuple(_made(cache / name) for name in ("uv", "npm", "gems")),
            run=(cache / "runtimes",),
        ),
        missing=refused,
    )
    # Heavy, and so only in the process that needs them: the other stays small.
    from isopod import runtimes
    from isopod.builder.job import run

    def before_guests() -> None:
        sandbox.close_network()
        _check(sandbox, job)

    try:
        sandbox.enter(
            {**package_index_environment(), **npm_environment(), **go_environment()},
            memory_bytes=job.memory_mib << 20,
            cpu_s=(job.timeout_s + _PATIENCE_S) * len(os.sched_getaffinity(0)),
        )
        _check(sandbox, job)
    except (IsopodError, OSError) as bad:
        failed = bad if isinstance(bad, IsopodError) else SandboxUnavailable(str(bad).lower())
        report.end({"error": failed.to_wire()})
        return 1
    return run(
        job,
        work=work,
        report=report,
        runtimes=runtimes.known(),
        before_guests=before_guests,
    )


def _check(sandbox: BuilderSandbox, job: BuildJob) -> None:
    if sandbox.missing and job.require_sandbox:
        raise SandboxUnavailable(
            f"the kernel refused the builder {', '.join(sandbox.missing)}",
            details={"missing": sandbox.missing},
        )


def _watch(pid: int, job: BuildJob, report: Report, work: Path) -> int:
    from isopod.builder.job import took_too_long, took_too_much_memory
    from isopod.builder.watch import watch

    status, verdict = watch(
        pid,
        memory_bytes=job.memory_mib << 20,
        seconds=job.timeout_s,
        too_much=lambda: took_too_much_memory(job),
        too_long=lambda: took_too_long(job),
    )
    shutil.rmtree(work, ignore_errors=True)
    if verdict is not None:
        report.end({"error": verdict.to_wire()})
        return 1
    if os.WIFSIGNALED(status):  # end as it did: our parent tells people how
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _made(folder: str | Path) -> Path:
    path = Path(folder)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _bind_to_parent() -> None:
    parent = os.getppid()
    kernel.end_with_parent()
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
    with suppress(PermissionError):  # it leads a session already
        os.setsid()


def _die_with(parent: int) -> None:
    kernel.end_with_parent()
    if os.getppid() not in (parent, 0):  # 0: it is outside of our process id namespace
        os._exit(1)


def _own_output() -> TextIO:
    """Standard output for reports only: whatever else prints goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    sys.exit(main())
