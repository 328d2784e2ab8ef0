"""`isopod status`."""

from __future__ import annotations

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, connect


def register(cli: typer.Typer) -> None:
    cli.command("status", epilog="Example: isopod status --json")(status)


def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the node, its workers and what runs in them."""
    with connect(data_dir) as client:
        found = client.status()
        url = client.node.url
    if as_json:
        output.print_json(found)
        return
    used, budget = output.mib(found["memory_bytes"]), output.mib(found["memory_budget_bytes"])
    output.fields(
        [
            ("node", f"isopod {found['version']} at {url}"),
            (
                "apps",
                f"{len(found['apps'])} at http://NAME.{found['domain']}:{found['gateway_port']}/",
            ),
            ("instances", found["instances"]),
            ("memory", f"{used} of {budget}"),
            *_snapshots(found["snapshots"]),
            ("data", found["data_dir"]),
        ]
    )
    output.say()
    output.table(
        ("WORKER", "PID", "INSTANCES", "INSTANCE MEMORY", "PROCESS MEMORY"),
        (
            (
                worker["worker"],
                worker["pid"],
                worker["instances"],
                output.mib(worker["memory_bytes"]),
                output.mib(worker["rss_bytes"]),
            )
            for worker in found["workers"]
        ),
    )
    missing = found["workers_wanted"] - len(found["workers"])
    if missing > 0:
        output.note(f"{missing} of {found['workers_wanted']} workers do not answer")


def _snapshots(made: dict[str, int]) -> list[tuple[str, object]]:
    """Nothing when none was out of date."""
    if not made["total"]:
        return []
    failed = f", {made['failed']} failed (see the apps' logs)" if made["failed"] else ""
    return [("snapshots", f"{made['rebuilt']} of {made['total']} rebuilt{failed}")]
