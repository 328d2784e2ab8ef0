"""`isopod doctor`: is this machine fit to run strangers' code?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, Config

_MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


def register(cli: typer.Typer) -> None:
    cli.command(
        epilog="Examples:\n\nisopod doctor --data-dir /var/lib/isopod\n\nisopod doctor --json\n\n"
        "Ends with 0 when there is no problem (warnings are none), with 1 when there is one."
    )(doctor)


def doctor(
    *,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="The node's folder, running or not.")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(metavar="D", help="Compiled runtimes. (~/.cache/isopod)")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check versions against known advisories, the kernel's sandbox, file modes and limits.

    Needs no node and changes nothing. Run it as the account that the node runs as.
    """
    from isopod.server.doctor.check import worst
    from isopod.server.doctor.examine import examine
    from isopod.settings import NodeSettings

    settings = NodeSettings.load(config=config, data_dir=data_dir, cache_dir=cache_dir)
    checks = examine(settings)
    status = worst(checks)
    if as_json:
        output.print_json({"status": status, "checks": [check.to_json() for check in checks]})
    else:
        area = ""
        for check in checks:
            if check.area == "advisories" and check.status == "ok" and check.name != "table":
                continue  # two dozen lines of what does no harm; --json has them
            if check.area != area:
                area = check.area
                output.say(f"{area}:")
            output.say(f"  {_MARKS[check.status]:<8} {check.name}: {check.text}")
            if check.advice:
                output.say(f"           -> {check.advice}")
        counts = [sum(c.status == kind for c in checks) for kind in ("problem", "warning")]
        output.say(f"{counts[0]} problems, {counts[1]} warnings")
    if status == "problem":
        raise typer.Exit(1)
