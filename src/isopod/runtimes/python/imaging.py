"""Taking the memory image of a booted, warmed app."""

from __future__ import annotations

import array
import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.image import write_sparse
from isopod.engine.scheduler import Scheduler
from isopod.errors import AppFailedToStart, IsopodError
from isopod.model.app import AppSpec
from isopod.model.log import Stream
from isopod.runtimes.guest import GuestRequest
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest

# CPython 3.15 on 32 bits: an object with this count is never counted again
# (Include/refcount.h, _Py_IMMORTAL_INITIAL_REFCNT). Writing it once keeps later requests from
# writing the object's page: 40 % fewer page faults in the first one.
_IMMORTAL = 5 << 28
_COUNTED = 1 << 29  # above: immortal already


@dataclass(frozen=True, slots=True)
class Taken:
    """An image in a file. `kept`: a planted setting is in the app's memory; `read`: setting ->
    "file:line" that read it; `entropy`: "file:line" that drew what may be kept; `times`: (global of
    the app that holds a time of the boot, "file:line"); `findings`: (kind, what, "file:line") of
    what must not be shared."""

    path: Path
    size: int
    pages: int
    clock_ns: int
    objects: int
    kept: bool
    read: dict[str, str]
    entropy: tuple[str, ...]
    times: tuple[tuple[str, str], ...]
    findings: tuple[tuple[str, str, str], ...]


async def take(
    runtime: PythonRuntime,
    scheduler: Scheduler,
    *,
    app_tree: Path,
    site_tree: Path,
    tmp: Path,
    spec: AppSpec,
    planted: bool,
    warmup: Sequence[tuple[GuestRequest, bytes]],
    out: Path,
) -> Taken:
    """Boot `spec` (with planted values for its settings if `planted`), warm it, write the image
    to `out`. Raises what the boot raises, and AppFailedToStart when a warm-up fails."""
    marker = secrets.token_hex(12) if planted else ""
    env = {name: f"{marker}-{name}" for name in spec.env} if planted else spec.env
    output: list[bytes] = []

    def collect(_stream: Stream, data: bytes) -> None:
        if len(output) < 200:
            output.append(data)

    guest = runtime.new_guest(
        scheduler=scheduler,
        app_tree=app_tree,
        site_tree=site_tree,
        tmp=tmp,
        entrypoint=spec.entrypoint,
        env=env,
        memory_mib=spec.limits.memory_mib,
        output=collect,
        watch=sorted(spec.env),
    )
    try:
        await guest.start()
        for request, body in warmup:
            await _warm(guest, request, body)
        instance = guest.instance
        objects = 0

        def immortal(addresses: bytes) -> None:
            nonlocal objects
            objects += make_immortal(instance.memory(), addresses)

        # The marker goes in two halves: our own code must not be what holds it.
        hook = spec.startup.before_snapshot
        halves = f"{hook!r}, {marker[:12]!r}, {marker[12:]!r}"
        report = await guest.prepare_image(
            f"import isopod_snapshot; isopod_snapshot.prepare({halves})".encode(), immortal
        )
        if report.get("error"):
            raise AppFailedToStart(
                "the app failed before its snapshot", details={"traceback": report["error"]}
            )
        memory = instance.memory()
        runtime.forget_sqlite_randomness(memory)
        clock_ns = instance.clock_ns
        pages = write_sparse(memory, out)
        return Taken(
            path=out,
            size=len(memory),
            pages=pages,
            clock_ns=clock_ns,
            objects=objects,
            kept=bool(report.get("kept")),
            read={str(k): str(v) for k, v in dict(report.get("read", {})).items()},
            entropy=tuple(str(place) for place in report.get("entropy", ())),
            times=tuple((str(name), str(place)) for name, place in report.get("time", ())),
            findings=tuple(
                (str(kind), str(what), str(place)) for kind, what, place in report["findings"]
            ),
        )
    except IsopodError as error:
        error.details.setdefault("traceback", b"".join(output).decode("utf-8", "replace"))
        raise
    finally:
        guest.close()


async def _warm(guest: PythonGuest, request: GuestRequest, body: bytes) -> None:
    left = body

    async def read(size: int) -> bytes:
        nonlocal left
        data, left = left[:size], left[size:]
        return data

    async with asyncio.timeout(30):
        response = await guest.send(request, read)
        while response.more and await guest.next_chunk() is not None:
            pass
        await guest.finish()
    if response.status >= 500:
        raise AppFailedToStart(
            f"the warm-up {request.method} {request.path} answered {response.status}"
        )


def make_immortal(memory: memoryview, addresses: bytes) -> int:
    """Set the reference count of the objects at `addresses`; how many were set. The guest gave
    the addresses, of its own memory: what is out of range or no count is left alone."""
    counts = memory[: len(memory) & ~3].cast("I")
    numbers = array.array("I")
    numbers.frombytes(addresses[: len(addresses) & ~3])
    done = 0
    for address in numbers:
        index = address >> 2
        if address & 3 or index >= len(counts):
            continue
        with contextlib.suppress(IndexError):
            if 0 < counts[index] < _COUNTED:
                counts[index] = _IMMORTAL
                done += 1
    return done
