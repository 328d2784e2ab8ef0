"""Runs a target for a while: the inputs in a child, the clock and the findings out here.

The child writes each input's number into a shared file before it runs it. So when the child dies
or hangs, what did it is known: the input is made again from the seed and that number.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import multiprocessing
import os
import random
import signal
import struct
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tools.fuzz.target import Target

_PROGRESS = struct.Struct("<QQ")  # inputs begun, inputs done
_START_S = 300.0
_LOOK_S = 0.05
_PR_SET_PDEATHSIG = 1
_NO_START = "the target did not start"


@dataclass(slots=True)
class Result:
    target: str
    seed: str
    inputs: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)

    def text(self) -> str:
        rate = self.inputs / self.seconds if self.seconds else 0.0
        found = "no finding" if not self.findings else f"{len(self.findings)} findings"
        line = (
            f"{self.target}: {self.inputs:,} inputs in {self.seconds:,.0f} s "
            f"({rate:,.0f}/s, seed {self.seed}): {found}"
        )
        kept = [f"  {path}: {what}" for path, what in zip(self.kept, self.findings, strict=True)]
        return "\n".join([line, *kept])


def run(target: Target, *, seconds: float, seed: str, keep: Path, most_findings: int = 5) -> Result:
    """Feed inputs for `seconds`, and on after a finding, until there are `most_findings`."""
    result = Result(target.name, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="isopod-fuzz-") as work:
        progress_path = Path(work) / "progress"
        progress_path.write_bytes(bytes(_PROGRESS.size))
        with progress_path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as progress:
            first, spent = 0, 0.0
            while spent < seconds and len(result.findings) < most_findings:
                folder = Path(work) / f"run-{len(result.findings)}"
                folder.mkdir()
                what, took = _child(target, seed, first, seconds - spent, folder, progress)
                spent += took
                begun, done = _PROGRESS.unpack(progress[:])
                if what == _NO_START:
                    raise RuntimeError(f"{target.name}: {what}")
                first = max(begun, done)
                if not what:
                    break
                result.findings.append(what)
                result.kept.append(_keep(target, seed, begun - 1, what, keep))
    result.inputs = first
    result.seconds = time.monotonic() - began
    return result


def make_input(target: Target, seed: str, number: int) -> bytes:
    return target.generate(random.Random(f"{seed}:{number}"))


def _child(
    target: Target, seed: str, first: int, seconds: float, folder: Path, progress: mmap.mmap
) -> tuple[str, float]:
    """What one child found, "" for nothing, and how long it ran inputs."""
    progress[:] = _PROGRESS.pack(first, first)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    where = str(folder.parent / "progress")
    process = context.Process(
        target=_feed, args=(target, seed, first, seconds, str(folder), where, theirs)
    )
    process.start()
    theirs.close()
    try:
        if not _wait_until_ready(ours, process):
            return _NO_START, 0.0
        started = time.monotonic()
        seen, seen_at = (first, first), started
        while process.is_alive() and not ours.poll(_LOOK_S):
            now = _PROGRESS.unpack(progress[:])
            if now != seen:
                seen, seen_at = now, time.monotonic()
            elif time.monotonic() - seen_at > target.longest_s and now[0] != now[1]:
                return f"an input took longer than {target.longest_s:.0f} s", seen_at - started
        took = time.monotonic() - started
        try:
            return str(ours.recv()), took
        except EOFError:
            process.join(60)
            return f"the process died (status {process.exitcode})", took
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def _wait_until_ready(ours: Connection, process: multiprocessing.context.SpawnProcess) -> bool:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.is_alive():
        if ours.poll(_LOOK_S):
            try:
                return bool(ours.recv() == "ready")
            except EOFError:
                return False
    return False


def _feed(
    target: Target,
    seed: str,
    first: int,
    seconds: float,
    folder: str,
    where: str,
    out: Connection,
) -> None:
    # Ends with whoever started it, however that one ends.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    said = _run_inputs(target, seed, first, seconds, Path(folder), Path(where), out)
    out.send(said)
    out.close()


def _run_inputs(
    target: Target,
    seed: str,
    number: int,
    seconds: float,
    folder: Path,
    where: Path,
    out: Connection,
) -> str:
    """What was found, "" for nothing. The target may still find something when it is closed."""
    with where.open("r+b") as file, mmap.mmap(file.fileno(), 0) as progress:
        try:
            with target.open(folder) as run_one:
                out.send("ready")
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    data = make_input(target, seed, number)
                    progress[:] = _PROGRESS.pack(number + 1, number)
                    run_one(data)
                    number += 1
                    progress[:] = _PROGRESS.pack(number, number)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"[:500]
    return ""


def _keep(target: Target, seed: str, number: int, what: str, keep: Path) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    data = make_input(target, seed, number)
    path = keep / f"{target.name}-{hashlib.sha256(data).hexdigest()[:8]}.bin"
    path.write_bytes(data)
    note = f"{what}\nseed {seed}, input {number}, process {os.getpid()}\n"
    path.with_suffix(".txt").write_text(note)
    return path
