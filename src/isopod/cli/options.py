"""Options that many commands share, and the client they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The app's name.")]


def connect(data_dir: Path | None, tenant: str | None = None) -> Client:
    """The client of the node that the options and the environment mean."""
    from isopod.client import Client, find_node

    settings = ClientSettings.load(data_dir, tenant)
    return Client(find_node(settings), tenant=settings.tenant)
