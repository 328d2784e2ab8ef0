"""The builder's process: dies with its parent, holds its own output, and reads one job."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TextIO

from isopod import runtimes
from isopod.builder.job import run
from isopod.builder.report import Report
from isopod.errors import BuildFailed
from isopod.model.build import BuildJob

_PR_SET_PDEATHSIG = 1
_MAX_FILE_BYTES = 4 << 30
_NICENESS = 5  # requests go before builds
_MORE_NICENESS = 5  # and builds that somebody waits for before the others


def main() -> int:
    _bind_to_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = _MAX_FILE_BYTES if most == resource.RLIM_INFINITY else min(most, _MAX_FILE_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
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
    return run(job, report=report, find_runtime=runtimes.get)


def _bind_to_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
    with suppress(PermissionError):  # it leads a session already
        os.setsid()


def _own_output() -> TextIO:
    """Standard output for reports only: whatever else prints goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    sys.exit(main())
