"""Options that many commands share, and the client they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isopod.errors import UsageError
from isopod.settings import ClientSettings

if TYPE_CHECKING:
    from isopod.client import Client

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="D", help="The node's folder, else ISOPOD_DATA_DIR."),
]
InTenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="T", help="Act for it, else ISOPOD_TENANT; the operator's."),
]
Config = Annotated[
    Path | None, typer.Option(metavar="F", help="The node's settings file. (ISOPOD_CONFIG)")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The app's name.")]


def subcommand_follows(context: typer.Context) -> bool:
    """For the callback of a group: whether a subcommand does the work. What was given before its
    name counts for it as if it stood after; UsageError where it has no such option, since a
    `--tenant` that is dropped would let it act for another tenant."""
    name = context.invoked_subcommand
    if name is None:
        return False
    group: Any = context.command
    takes = {parameter.name for parameter in group.get_command(context, name).params}
    given = {}
    for parameter in group.params:
        source = context.get_parameter_source(parameter.name)
        if source is None or source.name != "COMMANDLINE":
            continue
        if parameter.name not in takes:
            raise UsageError(
                f"{parameter.opts[0]} stands before {name!r}, which has no such option",
                hint=f"see `{context.command_path} {name} --help`",
            )
        given[parameter.name] = context.params[parameter.name]
    context.default_map = {**(context.default_map or {}), name: given}
    return True


def connect(data_dir: Path | None, tenant: str | None = None) -> Client:
    """The client of the node that the options and the environment mean."""
    from isopod.client import Client, find_node

    settings = ClientSettings.load(data_dir, tenant)
    return Client(find_node(settings), tenant=settings.tenant)
