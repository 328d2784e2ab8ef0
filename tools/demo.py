"""`make demo`: a node of its own, the examples deployed by the real command and called over
HTTP, a table of what they answered and how fast; then everything is stopped and removed.

Ends with status 0 only when every answer was right and nothing is left behind.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from isopod import runtimes
from isopod.errors import IsopodError
from isopod.settings import NodeSettings
from tools.demo_apps import DEMO, Example, Wrong
from tools.http_calls import Caller
from tools.node import Leftovers, Node, running
from tools.reactors import NoCompiler

COLD_CALLS = 3
WARM_CALLS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one app. `private_mib`: of its live instances; None: it has none."""

    example: Example
    answered: str
    cold_ms: float
    warm_ms: float
    private_mib: float | None


def prepared(examples: Iterable[Example], console: Console) -> list[Example]:
    """Those that can be deployed here: the runtimes that a node does not prepare by itself are
    prepared, before it starts."""
    missing = set()
    for name in sorted({one.prepare for one in examples if one.prepare}):
        console.print(f"[bold]isopod runtimes prepare {name}[/]")
        try:
            runtimes.prepare(name, NodeSettings.load().cache_dir, lambda *_: None)
        except IsopodError as error:
            missing.add(name)
            said = escape(f"{error.message} ({error.hint})")
            console.print(f"[bold yellow]left out:[/] {name}: {said}")
    return [one for one in examples if one.prepare not in missing]


def built(examples: Iterable[Example], into: Path, console: Console) -> list[tuple[Example, Path]]:
    """Each with the folder to deploy, but for those whose compiler is not on this machine."""
    found = []
    cache = NodeSettings.load().cache_dir / "examples"
    for one in examples:
        try:
            found.append((one, one.made(into, cache)))
        except NoCompiler as error:
            console.print(f"[bold yellow]left out:[/] {one.name}: {escape(str(error))}")
    return found


def visit(node: Node, example: Example) -> Row:
    """Each cold request finds no instance; those after it find a warm one, if it has any."""
    cold = []
    with Caller(node.gateway_port, example.name) as app:
        for _ in range(COLD_CALLS):
            node.sleep(example.name)
            cold.append(app.call().ms)
        answered = example.call(app)
        warm = [app.call().ms for _ in range(WARM_CALLS)]
    live = [one for one in node.instances() if one["app"] == example.name]
    private = sum(one["private_bytes"] for one in live) / len(live) / (1 << 20) if live else None
    return Row(example, answered, statistics.median(cold), statistics.median(warm), private)


def show(rows: list[Row], console: Console) -> None:
    table = Table(
        title=f"from zero instances (median of {COLD_CALLS}), then warm (median of {WARM_CALLS})"
    )
    for name, right in [
        ("app", False),
        ("language", False),
        ("answered", False),
        ("cold ms", True),
        ("warm ms", True),
        ("MiB of an instance, as counted", True),
    ]:
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "app")
    for row in rows:
        table.add_row(
            row.example.name,
            row.example.language,
            row.answered,
            f"{row.cold_ms:.1f}",
            f"{row.warm_ms:.2f}",
            "none stays" if row.private_mib is None else f"{row.private_mib:.2f}",
        )
    console.print(table)


def main() -> int:
    # A terminated demo takes its node with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    began = time.monotonic()
    try:
        examples = prepared(DEMO, console)
        with ExitStack() as stack:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="isopod-demo-"))
            folders = built(examples, Path(made), console)
            console.print("[bold]isopod up[/] (in a temporary directory, on free ports)")
            node = stack.enter_context(running(show=True))
            console.print("\n[bold]isopod runtimes[/]")
            node.cli("runtimes", show=True)
            for one, folder in folders:
                if one.volume:
                    console.print(f"\n[bold]isopod volumes create {one.volume}[/]")
                    node.cli("volumes", "create", one.volume, show=True)
                console.print(f"\n[bold]isopod deploy examples/{one.name} --name {one.name}[/]")
                node.cli("deploy", str(folder), "--name", one.name, show=True)
            console.print("\n[bold]calling each over HTTP[/]")
            show([visit(node, one) for one, _ in folders], console)
            console.print("\n[bold]isopod status[/]")
            node.cli("status", show=True)
            console.print("\n[bold]stopping the node[/] (SIGTERM)")
    except (Wrong, Leftovers, RuntimeError, subprocess.CalledProcessError) as error:
        console.print("[bold red]demo failed:[/]", escape(str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    console.print(
        f"[bold green]done[/] in {time.monotonic() - began:.0f} s: every answer was right, "
        "no process and no file is left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
