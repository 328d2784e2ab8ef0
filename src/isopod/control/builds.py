"""Running one builder process, and what it says as it goes.

The builder is short-lived and may die in any way; whatever it does, this ends with a result or
one of our errors, and with the builder and everything it started gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from isopod.control.child import child_argv, how_it_ended
from isopod.errors import BuildFailed, BuildTimeout, IsopodError
from isopod.model.app import AppSpec, Build
from isopod.model.build import BuildJob, Step
from isopod.model.snapshot import Snapshot
from isopod.settings import NodeSettings, bare_environment, package_index_environment

BUILDER = "isopod.builder"
_LINE_BYTES = 32 * 2**20  # an error may carry a long traceback
_GRACE_S = 15.0  # the builder ends itself at its timeout; after this we do


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder handed back."""

    spec: AppSpec
    build: Build
    snapshot: Snapshot | None


@dataclass(frozen=True)
class Builder:
    """Starts builder processes; `argv` gives the command."""

    settings: NodeSettings
    argv: Callable[[], list[str]] = lambda: child_argv(BUILDER)

    async def build(self, job: BuildJob) -> AsyncGenerator[Step | Built]:
        """The steps as they happen, then the result. Closing the iterator kills the build."""
        job = replace(
            job,
            memory_mib=self.settings.build_memory_mib,
            require_sandbox=self.settings.require_sandbox,
        )
        process = await asyncio.create_subprocess_exec(
            *self.argv(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=bare_environment(**package_index_environment()),
            start_new_session=True,  # so that its own children end with it
        )
        # Around each read, never around a `yield`: the steps of one build may be taken by
        # several tasks, and a timeout belongs to the task that entered it.
        deadline = asyncio.get_running_loop().time() + job.timeout_s + _GRACE_S
        try:
            async with asyncio.timeout_at(deadline):
                await _hand_over(process, job)
            while True:
                async with asyncio.timeout_at(deadline):
                    line = await _next_line(process)
                if line is None:
                    async with asyncio.timeout_at(deadline):
                        raise BuildFailed(_unfinished(await process.wait()))
                if "step" in line:
                    yield Step(**line["step"])
                elif "error" in line:
                    raise IsopodError.from_wire(line["error"])
                elif "result" in line:
                    yield _built(line["result"])
                    return
        except TimeoutError as bad:
            raise BuildTimeout(
                f"the build took longer than {job.timeout_s:g} s",
                hint="deploy fewer dependencies, or raise ISOPOD_BUILD_TIMEOUT_S on the node",
            ) from bad
        except (KeyError, TypeError, ValueError) as bad:
            raise BuildFailed("the builder spoke in a way control does not understand") from bad
        finally:
            _kill_group(process.pid)
            with suppress(asyncio.CancelledError):
                await asyncio.shield(process.wait())


def _built(result: dict[str, Any]) -> Built:
    taken = result.get("snapshot")
    return Built(
        spec=AppSpec.from_json(result["spec"]),
        build=Build.from_json(result["build"]),
        snapshot=Snapshot.from_json(taken) if taken else None,
    )


async def _hand_over(process: asyncio.subprocess.Process, job: BuildJob) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):  # it died first: its exit says so
        process.stdin.write(orjson.dumps(job.to_json()) + b"\n")
        await process.stdin.drain()
    process.stdin.close()


async def _next_line(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """None at the end. ValueError for what is no JSON object."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        return None
    body = orjson.loads(line)
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return body


def _unfinished(status: int) -> str:
    return f"the builder {how_it_ended(status)} and gave no result"


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
