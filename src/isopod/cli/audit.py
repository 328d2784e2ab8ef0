"""`isopod audit`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from isopod.cli import output
from isopod.cli.logs import parse_since
from isopod.cli.options import AsJson, DataDir, InTenant, connect


def register(cli: typer.Typer) -> None:
    cli.command(
        "audit",
        epilog="Examples:\n\nisopod audit --since 1d\n\nisopod audit --all-tenants --json",
    )(audit)


def audit(
    *,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="10m, 2h, 1d, or an ISO 8601 time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="The last so many.")] = 100,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Every tenant's; the operator's to ask.")
    ] = False,
    as_json: AsJson = False,
    tenant: InTenant = None,
    data_dir: DataDir = None,
) -> None:
    """Show who changed what, when and from where; newest first."""
    start = parse_since(since, time.time()) if since else 0.0
    with connect(data_dir, tenant) as client:
        found = client.audit(since=start, limit=limit, all_tenants=all_tenants)
    if as_json:
        output.print_json(found)
        return
    output.table(
        ("WHEN", "TENANT", "WHO", "FROM", "WHAT", "TARGET", "OUTCOME"),
        (
            (
                output.moment(one["at"])[:19],
                one["tenant"],
                _who(one),
                one["address"],
                one["action"],
                _plain(one["target"]),
                one["outcome"],
            )
            for one in found
        ),
    )


def _who(entry: dict[str, Any]) -> str:
    token = f" ({entry['token_id']})" if entry["token_id"] else ""
    return f"{entry['actor']}{token}"


def _plain(target: str) -> str:
    """A target may be any text that somebody asked for: not one that moves the cursor."""
    return target if target.isprintable() else ascii(target)
