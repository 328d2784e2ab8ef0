"""`make bench`: runs the benches named (all of them otherwise) and writes bench/results/."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console
from rich.markup import escape

from bench import (
    async_apps,
    billed,
    burst,
    cli,
    cold,
    density,
    deploy,
    figures,
    go,
    hostile_tenants,
    isolation,
    javascript,
    ledger,
    memory,
    metering,
    postgres,
    ruby,
    static,
    volumes,
    waiting,
    warm,
    wcgi,
    websockets,
)
from bench.figures import Result

BENCHES: dict[str, Callable[[Callable[[str], None]], Result]] = {
    "memory": memory.run,
    "warm": warm.run,
    "async": async_apps.run,
    "static": static.run,
    "javascript": javascript.run,
    "wcgi": wcgi.run,
    "go": go.run,
    "websockets": websockets.run,
    "cold": cold.run,
    "density": density.run,
    "burst": burst.run,
    "isolation": isolation.run,
    "hostile_tenants": hostile_tenants.run,
    "metering": metering.run,
    "ledger": ledger.run,
    "billed": billed.run,
    "volumes": volumes.run,
    "waiting": waiting.run,
    "postgres": postgres.run,
    "ruby": ruby.run,
    "deploy": deploy.run,
    "cli": cli.run,
}


def main() -> int:
    # A terminated bench takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False)
    names = sys.argv[1:] or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        console.print(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
        return 2
    results, failed = [], []
    began = time.monotonic()
    for name in names:
        console.print(f"[bold]{name}[/]")
        start, load = time.monotonic(), os.getloadavg()[0]

        def say(text: str, start: float = start) -> None:
            console.print(f"  {time.monotonic() - start:5.1f} s  {escape(text)}", style="dim")

        try:
            result = BENCHES[name](say)
        except Exception as error:  # the other benches are still worth having
            console.print(f"  [bold red]failed:[/] {escape(str(error))}")
            failed.append(name)
            continue
        result = replace(result, load=[load, os.getloadavg()[0]])
        figures.save(result, time.monotonic() - start)
        results.append(result)
        for figure in result.figures:
            verdict = figure.verdict.replace("*", "")
            line = f"  {figure.name:62} {figure.shown:>18}  {verdict}"
            console.print(escape(line.rstrip()), soft_wrap=True)
        before, after = result.load
        console.print(f"  load average {before:.2f} before, {after:.2f} after", style="dim")
    if results:
        text = figures.table(list(BENCHES))
        (figures.RESULTS / "table.md").write_text(text)
        console.print(f"written: {figures.RESULTS}/table.md, *.json, *.png", soft_wrap=True)
    console.print(f"{time.monotonic() - began:.0f} s in all")
    if failed:
        console.print(f"[bold red]failed:[/] {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
