"""Preparing a runtime: compiling it for this machine, in a child process: it takes gigabytes for
a while."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

import orjson

from isopod.control.audit import audited, entry
from isopod.control.child import child_argv
from isopod.control.node import Node
from isopod.errors import IsopodError, RuntimePrepareFailed
from isopod.model.principal import Principal
from isopod.settings import NodeSettings, child_environment


@dataclass(frozen=True, slots=True)
class Progress:
    """0.0 to 1.0, and what is being done."""

    progress: float
    text: str


async def prepare(who: Principal, name: str, *, node: Node) -> AsyncGenerator[Progress]:
    """Compile a runtime into the cache; the operator's to ask."""
    async with audited(who, "runtime.prepare", name, node=node):
        who.need_operator()
        async with aclosing(_prepare(name, settings=node.settings)) as items:
            async for item in items:
                yield item
        done = entry(who, "runtime.prepare", name, node.clock())
        await asyncio.to_thread(node.state.of(who.tenant).audit.add, done)


async def _prepare(name: str, *, settings: NodeSettings) -> AsyncGenerator[Progress]:
    argv = child_argv("isopod.runtimes.prepare", name, str(settings.cache_dir))
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            try:
                body = orjson.loads(line)
            except ValueError:
                continue  # a library printed something
            if "error" in body:
                raise IsopodError.from_wire(body["error"])
            if "progress" in body:
                yield Progress(float(body["progress"]), str(body.get("text", "")))
        status = await process.wait()
        if status:
            raise RuntimePrepareFailed(f"preparing runtime {name!r} ended with status {status}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
