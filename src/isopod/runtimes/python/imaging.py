"""Taking the memory image of a booted, warmed app."""

from __future__ import annotations

import array
import contextlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isopod.engine.image import write_sparse
from isopod.engine.scheduler import Scheduler
from isopod.errors import AppFailedToStart, IsopodError
from isopod.model.app import AppSpec
from isopod.model.log import Stream
from isopod.runtimes.base import LentVolume
from isopod.runtimes.mounts import used_volumes
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.taking import ImageLimits, boot_and_warm
from isopod.runtimes.warming import Warmup, bounded

# CPython 3.15 on 32 bits: an object with this count is never counted again
# (Include/refcount.h, _Py_IMMORTAL_INITIAL_REFCNT). Writing it once keeps later requests from
# writing the object's page: 40 % fewer page faults in the first one.
_IMMORTAL = 5 << 28
_COUNTED = 1 << 29  # above: immortal already


# The interpreter itself reads these, before any code that could be watched.
_INTERPRETERS = ("PYTHON", "LC_", "LANG", "TZ")
_APP_FRAME = re.compile(r'File "/app/([^"\n]+)", line (\d+)')


_LIMITS = ImageLimits()


class ImageTooLarge(IsopodError):
    """Its message is for people."""


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
    volumes: Sequence[LentVolume],
    spec: AppSpec,
    variables: Mapping[str, str],
    planted: Collection[str],
    warmup: Warmup,
    out: Path,
    limits: ImageLimits = _LIMITS,
) -> Taken:
    """Boot `spec` with `variables` (those named in `planted` with made-up values), warm it, write
    the image to `out`. Raises what the boot raises, AppFailedToStart when a warm-up or a hook
    fails, ImageTooLarge; `details["place"]` is "file:line" of the app's code that failed."""
    marker = secrets.token_hex(12) if planted else ""
    env = _planted(variables, planted, marker)
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
        disk_mib=spec.limits.disk_mib,
        output=collect,
        watch=sorted(variables),
        lifespan=bool(warmup),
        volumes=volumes,
    )
    try:
        await boot_and_warm(guest, warmup, limits, start="the import")
        instance = guest.instance
        objects = 0

        def immortal(addresses: bytes) -> None:
            nonlocal objects
            objects += make_immortal(instance.memory(), addresses)

        # It never shrinks, and what is done to a large one before its image is taken needs memory.
        _check_size(instance.memory_bytes, limits)
        # The marker goes in two halves: our own code must not be what holds it.
        hook = spec.startup.before_snapshot
        halves = f"{hook!r}, {marker[:12]!r}, {marker[12:]!r}"
        async with bounded(limits.boot_s, "a hook before the snapshot"):
            report = await guest.prepare_image(
                f"import isopod_snapshot; isopod_snapshot.prepare({halves})".encode(), immortal
            )
        if report.get("error"):
            said = str(report["error"])
            raise AppFailedToStart(
                f"a hook before the snapshot failed: {said.strip().splitlines()[-1]}",
                details={"traceback": said},
            )
        memory = instance.memory()
        _check_size(len(memory), limits)
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
            findings=(
                *((str(kind), str(what), str(place)) for kind, what, place in report["findings"]),
                *((one.kind, one.what, one.place) for one in used_volumes(instance)),
            ),
        )
    except IsopodError as error:
        error.details.setdefault("traceback", b"".join(output).decode("utf-8", "replace"))
        say_place(error)
        raise
    finally:
        guest.close()


def _check_size(size_bytes: int, limits: ImageLimits) -> None:
    if size_bytes > limits.max_bytes:
        raise ImageTooLarge(
            f"its memory of {size_bytes >> 20} MiB is larger than an image may be "
            f"({limits.max_bytes >> 20} MiB)"
        )


def say_place(error: IsopodError) -> None:
    """In `details["place"]`: "file:line" of the app's code that failed, "" when it is not known."""
    frames = _APP_FRAME.findall(str(error.details.get("traceback", "")))
    error.details.setdefault("place", ":".join(frames[-1]) if frames else "")


def interpreters(env: Mapping[str, str]) -> list[str]:
    """The settings that are for the interpreter."""
    return sorted(name for name in env if name.startswith(_INTERPRETERS))


def _planted(env: Mapping[str, str], planted: Collection[str], marker: str) -> dict[str, str]:
    made_up = set(planted) - set(interpreters(env))
    return {name: f"{marker}-{name}" if name in made_up else text for name, text in env.items()}


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
