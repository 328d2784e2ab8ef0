"""The memory that every guest starts from: QuickJS after the prelude, and where it keeps what."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path

from isopod.engine.image import write_sparse
from isopod.engine.instance import Instance
from isopod.engine.scheduler import Scheduler
from isopod.errors import IsopodError, RuntimePrepareFailed
from isopod.runtimes.javascript.artifacts import BASE_IMAGE, FACTS, PRELUDE
from isopod.runtimes.javascript.runtime import load, new_instance

_MEMORY = 64 << 20
_HOST_FUNCTION = b"__isopod_host"
# The prelude leaves what the host needs in a global of this name: it becomes the script's value.
_VALUE = b";((found) => (delete globalThis.__isopod, found))(globalThis.__isopod)"


def prepare(cache_dir: Path, folder: Path) -> None:
    """Write `facts.json` and `base.image`. Raises RuntimePrepareFailed."""
    linkage = load(cache_dir)
    code = (folder / PRELUDE).read_bytes() + _VALUE
    data = b"prelude.js".ljust(16, b"\0") + _HOST_FUNCTION.ljust(16, b"\0") + code + b"\0"

    async def run() -> tuple[dict[str, int | str], bytes]:
        async with Scheduler(linkage.engine) as scheduler:
            instance = new_instance(linkage, _MEMORY)
            try:
                await _calls(scheduler, instance, ("_initialize", None), ("isopod_prelude", data))
                if not instance.returned:
                    raise RuntimePrepareFailed("QuickJS does not run the prelude")
                at = instance.returned
                words = instance.memory()[at : at + 12].cast("I")
                facts = {"turn": words[0], "inbox": words[1], "outbox": words[2]}
                await _calls(scheduler, instance, ("qjs_get_undefined", None))
                value = bytes(instance.memory()[instance.returned : instance.returned + 8])
                await _calls(scheduler, instance, ("qjs_run_gc", None))
                known: dict[str, int | str] = {**facts, "undefined": value.hex()}
                known["clock_ns"] = instance.clock_ns
                return known, bytes(instance.memory())
            finally:
                instance.close()

    facts, memory = asyncio.run(run())
    temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.write_text(json.dumps(facts))
        temporary.replace(folder / FACTS)
        write_sparse(memory, temporary)
        # Last: its presence says that all is there.
        temporary.replace(folder / BASE_IMAGE)
    finally:
        temporary.unlink(missing_ok=True)


async def _calls(
    scheduler: Scheduler, instance: Instance, *calls: tuple[str, bytes | None]
) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_exit(error: IsopodError | None) -> None:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(RuntimePrepareFailed(f"the prelude failed: {error.message}"))

    instance.on_exit = on_exit
    if instance.memory_bytes:
        instance.then(calls)
    else:
        instance.start(calls)
    scheduler.wake(instance)
    await ended
