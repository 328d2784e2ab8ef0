"""How the command line speaks: tables for people, JSON for programs, errors for both.

Results go to standard output, everything else to standard error; with --json standard output
holds the JSON alone. rich is loaded only for a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO

import orjson

from isopod.errors import IsopodError

# Shown below the error, each under its key.
_LONG_DETAILS = ("traceback", "output", "log")


def print_json(value: object, *, one_line: bool = False) -> None:
    options = 0 if one_line else orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(value, option=options).decode() + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A result, on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Something beside the result, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: frozenset[str] = frozenset(),
    total: Sequence[object] | None = None,
) -> None:
    """A rich table on a terminal, aligned plain text elsewhere. `right`: columns of numbers;
    `total`: a last row, set apart."""
    cells = [[str(value) for value in row] for row in rows]
    last = [] if total is None else [[str(value) for value in total]]
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            shown.add_column(column, no_wrap=True, justify="right" if column in right else "left")
        for row in cells:
            shown.add_row(*(Text(cell) for cell in row))
        for row in last:
            shown.add_section()
            shown.add_row(*(Text(cell) for cell in row), style="bold")
        # As wide as it needs: a URL that was cut cannot be clicked.
        all_rows = [*cells, *last]
        needed = sum(max(map(len, c), default=0) + 2 for c in zip(columns, *all_rows, strict=True))
        Console(width=needed).print(shown, crop=False, soft_wrap=True)
        return
    lines = [list(columns), *cells, *last]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        say("  ".join(padded).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """One `name  value` a line."""
    shown = [(name, str(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {value}".rstrip())


def print_error(error: IsopodError) -> None:
    """`error: ...`, then whose fault it is, and what to do."""
    lines = []
    for key in _LONG_DETAILS:
        text = error.details.get(key)
        if isinstance(text, str) and text.strip():
            lines += [f"  {line}" for line in text.rstrip().splitlines()]
    for finding in error.details.get("findings") or ():
        where = f" ({finding['place']})" if finding["place"] else ""
        lines.append(f"  {finding['kind']}: {finding['what']}{where}")
    lines.append(f"error: {error.message}")
    lines.append(f"  whose: {error.whose}  code: {error.code}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    note("\n".join(lines))


def ago(at: float) -> str:
    """Seconds since the epoch as "5 min ago"."""
    seconds = max(0.0, time.time() - at)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def moment(at: float) -> str:
    """Local time, to the millisecond."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def mib(size_bytes: float, *, digits: int = 1) -> str:
    return f"{size_bytes / 2**20:.{digits}f} MiB"


class Steps:
    """The steps of a deploy on standard error: a spinner on a terminal, a line when done."""

    def __init__(self) -> None:
        self._spinner: Any = None

    def show(self, step: dict[str, Any]) -> None:
        if step["state"] == "done":
            self.stop()
            note(f"  {step['name']:<13} {step['text']:<50} {step['seconds']:6.2f} s")
        elif is_terminal(sys.stderr):
            self._spin(f"{step['name']}: {step['text']}")

    def _spin(self, text: str) -> None:
        from rich.markup import escape

        if self._spinner is None:
            from rich.console import Console

            self._spinner = Console(stderr=True).status(escape(text))
            self._spinner.start()
        else:
            self._spinner.update(escape(text))

    def stop(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class Bar:
    """One progress bar on standard error; plain lines, a tenth apart, when it is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._shown = -1.0

    def update(self, fraction: float, text: str) -> None:
        if not is_terminal(sys.stderr):
            if fraction - self._shown >= 0.1 or fraction >= 1.0 > self._shown:
                self._shown = fraction
                note(f"{text} {fraction:4.0%}")
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed

            columns = (TextColumn("{task.description}", markup=False), BarColumn())
            console = Console(stderr=True)
            self._bar = Progress(*columns, TaskProgressColumn(), Elapsed(), console=console)
            self._bar.start()
            self._task = self._bar.add_task(text, total=1.0)
        self._bar.update(self._task, completed=fraction, description=text)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
