"""`isopod status`."""

from __future__ import annotations

from typing import Any

import typer

from isopod.cli import output
from isopod.cli.options import AsJson, DataDir, InTenant, connect


def register(cli: typer.Typer) -> None:
    cli.command("status", epilog="Example: isopod status --json")(status)


def status(as_json: AsJson = False, tenant: InTenant = None, data_dir: DataDir = None) -> None:
    """Show the node, its workers and what runs in them; a tenant sees its own part."""
    with connect(data_dir, tenant) as client:
        found = client.status()
        url = client.node.url
    if as_json:
        output.print_json(found)
        return
    of_node = found["data_dir"] is not None
    memory = output.mib(found["memory_bytes"])
    if of_node:
        memory += f" of {output.mib(found['memory_budget_bytes'])}"
    output.fields(
        [
            ("node", f"isopod {found['version']} at {url}"),
            *([] if of_node else [("tenant", found["tenant"])]),
            (
                "apps",
                f"{len(found['apps'])} at http://NAME.{found['domain']}:{found['gateway_port']}/",
            ),
            ("instances", found["instances"]),
            ("memory", memory),
            *(_of_node(found) if of_node else []),
        ]
    )
    if of_node:
        _workers(found)


def _of_node(found: dict[str, Any]) -> list[tuple[str, object]]:
    return [*_snapshots(found["snapshots"]), ("data", found["data_dir"])]


def _workers(found: dict[str, Any]) -> None:
    output.say()
    output.table(
        ("WORKER", "OF", "PID", "INSTANCES", "INSTANCE MEMORY", "PROCESS MEMORY", "SANDBOX"),
        (
            (
                worker["worker"],
                worker["tenant"] or "all",
                worker["pid"],
                worker["instances"],
                output.mib(worker["memory_bytes"]),
                output.mib(worker["rss_bytes"]),
                _sandbox(worker["sandbox"]),
            )
            for worker in found["workers"]
        ),
    )
    missing = found["workers_wanted"] - sum(not one["tenant"] for one in found["workers"])
    if missing > 0:
        output.note(f"{missing} of {found['workers_wanted']} workers do not answer")


def _sandbox(of_worker: dict[str, list[str]]) -> str:
    missing = of_worker["missing"]
    return f"without {', '.join(missing)}" if missing else "complete"


def _snapshots(made: dict[str, int]) -> list[tuple[str, object]]:
    """Nothing when none was out of date."""
    if not made["total"]:
        return []
    failed = f", {made['failed']} failed (see the apps' logs)" if made["failed"] else ""
    return [("snapshots", f"{made['rebuilt']} of {made['total']} rebuilt{failed}")]
