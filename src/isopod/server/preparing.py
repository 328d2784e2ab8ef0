"""Preparing the runtimes before the first start, in a child: compiling takes gigabytes for a while,
and the supervisor must stay small."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress

from isopod.control.child import child_argv
from isopod.errors import IsopodError, RuntimePrepareFailed
from isopod.server.report import Reporter
from isopod.settings import NodeSettings, child_environment

_MODULE = "isopod.runtimes.prepare"


async def prepare_runtimes(
    *names: str, settings: NodeSettings, report: Reporter, module: str = _MODULE
) -> None:
    """Returns when the runtimes are in the cache; at once when they were."""
    process = await asyncio.create_subprocess_exec(
        *child_argv(module, "--for-up", *names, str(settings.cache_dir)),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        env=child_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = False
    try:
        while line := await process.stdout.readline():
            try:
                body = json.loads(line)
            except ValueError:
                continue  # a library printed something
            if "error" in body:
                raise IsopodError.from_wire(body["error"])
            fraction = float(body.get("progress", 1.0))
            if fraction < 1.0 or shown:  # prepared already: show nothing
                report.progress(fraction, str(body.get("text", "")))
                shown = True
        status = await process.wait()
        if status:
            raise RuntimePrepareFailed(
                f"preparing {', '.join(names)} ended with status {status}",
                hint="its messages are above; it needs about 3 GB of memory",
            )
    finally:
        if shown:
            report.progress_done()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
