"""Processes as /proc shows them: who is whose child, their CPU time and their memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was seen. `started` (ticks since boot) tells it from a later one that was
    given the same number."""

    pid: int
    parent: int
    started: int
    cpu_s: float  # its own and that of children it has waited for
    command: str

    def alive(self) -> bool:
        """Whether this very process still runs; one that only waits to be reaped does not."""
        now = look(self.pid)
        return now is not None and now.started == self.started


def look(pid: int) -> Process | None:
    """The process with this number, or None when there is none (or only a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name may hold spaces and brackets: the fields begin after its last bracket.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return Process(
        pid=pid,
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu_s=ticks / _TICKS_PER_S,
        command=command.replace(b"\0", b" ").decode(errors="replace").strip(),
    )


def everything() -> list[Process]:
    """All processes that run now."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [process for pid in numbers if (process := look(pid)) is not None]


def descendants(pid: int) -> list[Process]:
    """The children of a process, theirs, and so on."""
    found, parents = [], {pid}
    rest = everything()
    while new := [process for process in rest if process.parent in parents]:
        found += new
        parents = {process.pid for process in new}
        rest = [process for process in rest if process not in new]
    return found


def mentioning(text: str) -> list[Process]:
    """The processes, other than this one, that hold `text` in their command or environment."""
    found = []
    for process in everything():
        if process.pid == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            environment = b""
        if text in process.command or text.encode() in environment:
            found.append(process)
    return found


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes, and the children they waited for, have used."""
    return sum(process.cpu_s for pid in pids if (process := look(pid)) is not None)


def memory_kib(pid: int) -> dict[str, int]:
    """Sums over a process's mappings by the kernel's names ("Rss", "Pss", "Private_Dirty"...)."""
    return _fields(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])


def private_mib(pid: int) -> float:
    """What would be free again if this process ended: its pages that nobody shares."""
    memory = memory_kib(pid)
    return (memory["Private_Clean"] + memory["Private_Dirty"]) / 1024


def mapping_kib(pid: int, suffix: str) -> dict[str, int]:
    """The same sums over the mappings of files whose names end in `suffix`."""
    totals: dict[str, int] = {}
    wanted = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head, _, rest = line.partition(" ")
        if not head.endswith(":"):  # "7f00-7fff r-xp 0000 08:01 123   /path": a mapping begins
            wanted = rest.endswith(suffix)
        elif wanted:
            for name, value in _fields([line]).items():
                totals[name] = totals.get(name, 0) + value
    return totals


def _fields(lines: list[str]) -> dict[str, int]:
    pairs = [line.split() for line in lines]
    return {words[0].rstrip(":"): int(words[1]) for words in pairs if words[-1] == "kB"}
